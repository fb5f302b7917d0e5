"""What each of two processes does in a test of distributed training; a file of its own, as each of them imports it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim.optimizer import _global_optimizer_pre_hooks

from captum_lipschitz import HalfHuberReLU, LipschitzRegularizer, RegularizedModule, attach_regularizer
from captum_lipschitz.errors import CaptumLipschitzError
from captum_lipschitz.training import PenaltyDraws

IMAGES, PROCESSES, STRENGTH = 8, 2, 5.0


def network() -> nn.Sequential:
    """Without BatchNorm, whose statistics would differ between processes."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Sequential(nn.Linear(12, 16), HalfHuberReLU()),
        nn.Sequential(nn.Linear(16, 16), nn.LayerNorm(16), HalfHuberReLU()),
        nn.Linear(16, 4),
    ).double()


def batch(rows: slice) -> tuple[Tensor, Tensor, list[PenaltyDraws]]:
    """Some of the images, labels and draws."""
    generator = torch.Generator().manual_seed(1)
    inputs = torch.rand(IMAGES, 12, generator=generator, dtype=torch.float64)
    labels = torch.randint(4, (IMAGES,), generator=generator)
    classes, tandem = torch.randint(4, (IMAGES,), generator=generator), torch.arange(IMAGES) % 3 == 0
    return inputs[rows], labels[rows], [PenaltyDraws(classes[rows], tandem[rows])]


def reference(*, penalised: bool = True) -> list[Tensor]:
    """The whole batch's parameter gradients, in one process."""
    model = network()
    inputs, labels, draws = batch(slice(IMAGES))
    leaf = inputs.clone().requires_grad_()
    logits = model(leaf)
    loss = F.cross_entropy(logits, labels)
    if penalised:
        loss = loss + STRENGTH * LipschitzRegularizer(strength=1.0).penalty(logits, leaf, labels, draws=draws)
    loss.backward()
    return [p.grad for p in model.parameters() if p.grad is not None]


class Process:
    """One of the processes, with its part of the batch."""

    def __init__(self, rank: int) -> None:
        share = IMAGES // PROCESSES
        self.rows = slice(rank * share, (rank + 1) * share)
        self.expected = reference()

    def regularizer(self, **settings: Any) -> LipschitzRegularizer:
        return LipschitzRegularizer(strength=STRENGTH, **settings)

    def error(self, model: nn.Module, expected: list[Tensor] | None = None) -> float:
        """The largest relative error of a parameter's gradient."""
        found = [p.grad.full_tensor() if hasattr(p.grad, "full_tensor") else p.grad for p in model.parameters()]
        pairs = zip(found, expected or self.expected, strict=True)
        return max(float((a - b).norm() / b.norm()) for a, b in pairs)

    def train(self, module: nn.Module, regularizer: LipschitzRegularizer, steps: int = 3) -> list[float]:
        """Steps of an optimiser that changes nothing, with the errors of their gradients."""
        errors = []
        inputs, labels, draws = batch(self.rows)
        plain = reference(penalised=False)
        for _ in range(steps):
            due = regularizer.due
            module.zero_grad()
            logits, penalty = module(inputs, labels, draws=draws)
            loss = F.cross_entropy(logits, labels)
            factor = regularizer.every if due else 1
            output = regularizer.combine(penalty / factor, task_loss=loss)
            output.loss.backward()
            errors.append(self.error(module, self.expected if due else plain))
        return errors

    def inside(self, every: int = 1, **settings: Any) -> list[float]:
        regularizer = self.regularizer(every=every)
        return self.train(
            DistributedDataParallel(RegularizedModule(network(), regularizer), **settings), regularizer, 4
        )

    def through(self, **settings: Any) -> float:
        """The penalty's gradient taken through DistributedDataParallel's forward pass."""
        model = DistributedDataParallel(network(), **settings)
        inputs, labels, draws = batch(self.rows)
        leaf = inputs.clone().requires_grad_()
        logits = model(leaf)
        regularizer = self.regularizer()
        penalty = regularizer.penalty(logits, leaf, labels, draws=draws)
        regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.backward()
        return self.error(model)

    def accumulated(self) -> float:
        """Two micro-batches, the first without exchange."""
        regularizer = self.regularizer(accumulation_steps=2)
        model = DistributedDataParallel(RegularizedModule(network(), regularizer))
        half = (self.rows.stop - self.rows.start) // 2
        for part in range(2):
            start = self.rows.start + part * half
            inputs, labels, draws = batch(slice(start, start + half))
            with model.no_sync() if part == 0 else torch.enable_grad():
                logits, penalty = model(inputs, labels, draws=draws)
                output = regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels))
                (output.loss / 2).backward()
        return self.error(model)

    def compiled(self) -> list[float]:
        regularizer = self.regularizer()
        module = RegularizedModule(network(), regularizer)
        module.compile(backend="aot_eager")
        return self.train(DistributedDataParallel(module), regularizer)

    def steps_of(self, loss: Callable[..., None]) -> int:
        """Optimiser steps of a wrong way, as the user's loop would go on; an error ends them."""
        model = DistributedDataParallel(network())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        regularizer = self.regularizer()
        inputs, labels, _ = batch(self.rows)
        for _ in range(5):
            optimizer.zero_grad()
            loss(model, regularizer, inputs.clone().requires_grad_(), labels)
            optimizer.step()
        return 5

    def by_module(self) -> int:
        def loss(model: Any, regularizer: LipschitzRegularizer, leaf: Tensor, labels: Tensor) -> None:
            logits = model.module(leaf)
            regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss.backward()

        return self.steps_of(loss)

    def by_two_backwards(self) -> int:
        def loss(model: Any, regularizer: LipschitzRegularizer, leaf: Tensor, labels: Tensor) -> None:
            logits = model(leaf)
            task_loss = F.cross_entropy(logits, labels)
            output = regularizer(logits, leaf, labels, task_loss=task_loss)
            task_loss.backward(retain_graph=True)
            (output.loss - task_loss).backward()

        return self.steps_of(loss)

    def by_the_right_way(self) -> int:
        def loss(model: Any, regularizer: LipschitzRegularizer, leaf: Tensor, labels: Tensor) -> None:
            logits = model(leaf)
            regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss.backward()

        return self.steps_of(loss)

    def attached(self) -> None:
        attach_regularizer(DistributedDataParallel(network()), self.regularizer())

    def sharded(self, *, layers: bool) -> list[float]:
        regularizer = self.regularizer()
        model = network()
        if layers:
            for layer in model:
                fully_shard(layer)
        return self.train(fully_shard(RegularizedModule(model, regularizer)), regularizer)

    def sharded_and_accumulated(self) -> float:
        """The user's own settings of the exchange are put back after the penalty's gradient."""
        regularizer = self.regularizer(accumulation_steps=2)
        model = network()
        for layer in model:
            fully_shard(layer)
        module = fully_shard(RegularizedModule(model, regularizer))
        half = (self.rows.stop - self.rows.start) // 2
        for part in range(2):
            start = self.rows.start + part * half
            inputs, labels, draws = batch(slice(start, start + half))
            module.set_requires_gradient_sync(part == 1)
            logits, penalty = module(inputs, labels, draws=draws)
            output = regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels))
            (output.loss / 2).backward()
        return self.error(module)

    def sharded_outside(self) -> None:
        model = fully_shard(network())
        inputs, labels, _ = batch(self.rows)
        leaf = inputs.clone().requires_grad_()
        logits = model(leaf)
        self.regularizer()(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))

    def sharded_layers_compiled(self) -> None:
        model = network()
        for layer in model:
            fully_shard(layer)
        RegularizedModule(model, self.regularizer()).compile()

    def sharded_root_compiled(self) -> list[float]:
        regularizer = self.regularizer()
        module = RegularizedModule(network(), regularizer)
        module.compile(backend="aot_eager")
        return self.train(fully_shard(module), regularizer)

    def sharded_names(self) -> bool:
        module = fully_shard(RegularizedModule(network(), self.regularizer()))
        return list(get_model_state_dict(module)) == list(network().state_dict())

    def sharded_training(self, **settings: Any) -> list[str]:
        """An optimiser's steps on sharded parameters, ended by hand; the warnings that they bring."""
        before = set(_global_optimizer_pre_hooks)
        regularizer = self.regularizer(every=2, accumulation_steps=None)
        module = fully_shard(RegularizedModule(network(), regularizer), **settings)
        optimizer = torch.optim.Adam(module.parameters(), lr=0.01)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(4):
                inputs, labels, _ = batch(self.rows)
                logits, penalty = module(inputs, labels)
                output = regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels))
                optimizer.zero_grad()
                output.loss.backward()
                optimizer.step()
                regularizer.step()
        texts = [str(warning.message) for warning in caught]
        return [text for text in texts if "LipschitzRegularizer" in text] + [
            "hook" for _ in set(_global_optimizer_pre_hooks) - before
        ]

    def reused(self) -> None:
        """A regularizer that went on from a model trained rightly to one without any exchange."""
        regularizer = self.regularizer()
        self.train(DistributedDataParallel(RegularizedModule(network(), regularizer)), regularizer)
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(5):
            inputs, labels, _ = batch(self.rows)
            logits, penalty = RegularizedModule(model, regularizer)(inputs, labels)
            optimizer.zero_grad()
            regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.backward()
            optimizer.step()

    def resolutions(self) -> float:
        """The factor of 16 features where the first process began with 8 and the other with 16."""
        regularizer = self.regularizer()
        regularizer.resolution_factor(torch.zeros(2, 8 * (1 + distributed.get_rank())))
        return regularizer.resolution_factor(torch.zeros(2, 16))

    def generators(self) -> bool:
        """Whether the processes draw differently."""
        own = torch.rand(3, generator=LipschitzRegularizer(strength=1.0).generator)
        both = [torch.empty(3) for _ in range(PROCESSES)]
        distributed.all_gather(both, own)
        return not torch.equal(*both)

    def group_of_one(self) -> int:
        """Processes that train parameters of their own say so."""
        group = [distributed.new_group([rank]) for rank in range(PROCESSES)][distributed.get_rank()]
        model = network()
        with torch.no_grad():
            model[2].weight.add_(distributed.get_rank())
        regularizer = self.regularizer(process_group=group)
        for _ in range(3):
            inputs, labels, _ = batch(self.rows)
            leaf = inputs.clone().requires_grad_()
            logits = model(leaf)
            regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))
        return 3


CASES: dict[str, Callable[[Process], Any]] = {
    "inside": lambda process: process.inside(),
    "inside, static_graph": lambda process: process.inside(static_graph=True),
    "inside, find_unused_parameters": lambda process: process.inside(find_unused_parameters=True),
    "inside, gradient_as_bucket_view": lambda process: process.inside(gradient_as_bucket_view=True),
    "inside, every": lambda process: process.inside(every=2),
    "inside, every, static_graph": lambda process: process.inside(every=2, static_graph=True),
    "inside, no_sync": lambda process: process.accumulated(),
    "inside, compiled": lambda process: process.compiled(),
    "through": lambda process: process.through(),
    "through, find_unused_parameters": lambda process: process.through(find_unused_parameters=True),
    "through, static_graph": lambda process: process.through(static_graph=True),
    "right": lambda process: process.by_the_right_way(),
    "module": lambda process: process.by_module(),
    "two backwards": lambda process: process.by_two_backwards(),
    "attached": lambda process: process.attached(),
    "sharded root": lambda process: process.sharded(layers=False),
    "sharded layers": lambda process: process.sharded(layers=True),
    "sharded layers, accumulated": lambda process: process.sharded_and_accumulated(),
    "sharded root, compiled": lambda process: process.sharded_root_compiled(),
    "sharded, outside": lambda process: process.sharded_outside(),
    "sharded layers, compiled": lambda process: process.sharded_layers_compiled(),
    "sharded, names": lambda process: process.sharded_names(),
    "sharded, trained": lambda process: process.sharded_training(),
    "sharded, trained and freed": lambda process: process.sharded_training(reshard_after_forward=True),
    "reused": lambda process: process.reused(),
    "resolutions": lambda process: process.resolutions(),
    "generators": lambda process: process.generators(),
    "group of one": lambda process: process.group_of_one(),
}


def run(rank: int, rendezvous: str, output: str) -> None:
    """Every case, one after the other; what each gave, or its error's text, goes to a file."""
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=PROCESSES)
    process, answers = Process(rank), {}
    for name, case in CASES.items():
        try:
            answers[name] = case(process)
        except CaptumLipschitzError as error:
            answers[name] = f"{type(error).__name__}: {error}"
        distributed.barrier()
    torch.save(answers, Path(output) / f"{rank}.pt")
    distributed.destroy_process_group()
