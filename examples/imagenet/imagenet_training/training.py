"""A run's state, and one step of it."""

from __future__ import annotations

import math
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, distributed, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, AdamW, Optimizer
from torchvision.transforms import v2

from captum_lipschitz import (
    AdaptiveStrength,
    AdversarialTraining,
    HalfHuberSchedule,
    LipschitzRegularizer,
    RegularizedModule,
)
from imagenet_training.network import build_network
from imagenet_training.pictures import mixed
from imagenet_training.processes import Processes
from imagenet_training.recipe import Recipe


class Figures(NamedTuple):
    """One step's figures, scalars on the device; the penalty is the last one that was formed."""

    loss: Tensor
    penalty: Tensor
    strength: Tensor


class Training:
    """Everything that a run changes.

    Args:
        recipe: what is trained.
        classes: number of classes.
        steps_per_epoch: optimiser steps in one epoch.
        processes: where.

    Attributes:
        network: the bare one, which validation runs and checkpoints hold. Under ``fully_shard`` its parameters are
            shards.
        module: what training runs: the network, its penalty, and the exchange between processes.
        step: steps taken.
    """

    def __init__(self, recipe: Recipe, classes: int, *, steps_per_epoch: int, processes: Processes) -> None:
        self.recipe, self.classes, self.processes, self.step = recipe, classes, processes, 0
        self._steps_per_epoch = steps_per_epoch
        self.network = build_network(recipe, classes).to(processes.device)
        if recipe.channels_last and not self.sharded:  # fully_shard takes contiguous parameters only
            self.network = self.network.to(memory_format=torch.channels_last)
        rounding = round(recipe.rounding_epochs * steps_per_epoch)
        self.rounding = HalfHuberSchedule(self.network, steps=rounding, final_delta=recipe.delta) if rounding else None
        seed = mixed(recipe.seed, "draws", processes.rank)
        self.regularizer = _regularizer(recipe, torch.Generator().manual_seed(seed))
        self.adversary = (
            AdversarialTraining(probability=recipe.adversarial, generator=torch.Generator().manual_seed(seed + 1))
            if recipe.adversarial
            else None
        )
        self.module = _wrapped(self.network, self.regularizer, recipe, processes)
        self.optimizer = _optimizer(self.network, recipe)
        self._mix = _mixing(recipe, classes)
        self._penalty = torch.zeros((), device=processes.device)

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a part of the parameters."""
        return self.recipe.sharding == "fsdp2" and self.processes.size > 1

    def share_buffers(self) -> None:
        """BatchNorm's averages of the first process for all, which each has followed on its own share of the images.

        Weights and results are made with them. DistributedDataParallel hands them on at each step in any case.
        """
        if self.processes.size > 1:
            for buffer in self.network.buffers():
                distributed.broadcast(buffer, src=0)

    def finite(self) -> bool:
        """Whether every number of the network, in all processes, is one."""
        held = [*self.network.parameters(), *self.network.buffers()]
        parts = [part.to_local() if isinstance(part, DTensor) else part for part in held]
        own = torch.stack([part.detach().isfinite().all() for part in parts]).all()
        return not self.processes.any(not own)

    def take_step(self, images: Tensor, labels: Tensor) -> Figures:
        """One step on this process's share of a batch: images (N, 3, H, W) uint8, labels (N,)."""
        torch.manual_seed(mixed(self.recipe.seed, "step", self.step, self.processes.rank))  # dropout's, and mixup's
        inputs = images.to(self.processes.device, non_blocking=True).float() / 255
        if self.recipe.channels_last:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        targets: Tensor = labels.to(self.processes.device, non_blocking=True)
        if self._mix is not None:
            inputs, targets = self._mix(inputs, targets)
        self.module.train()
        if self.adversary is not None:
            with self.autocast():
                inputs = self.adversary(self.module, inputs, targets)
        figures = self._form_gradients(inputs, targets)
        self._descend()
        return figures

    def autocast(self) -> AbstractContextManager[Any]:
        """The precision of forward passes."""
        if self.recipe.precision == "float32":
            return nullcontext()
        return torch.autocast(self.processes.device.type, dtype=torch.bfloat16)

    def _form_gradients(self, inputs: Tensor, targets: Tensor) -> Figures:
        if self.regularizer is None:
            with self.autocast():
                logits = self.module(inputs)
            loss = self._task_loss(logits, targets)
            loss.backward()
            nothing = torch.zeros_like(loss)
            return Figures(loss.detach(), nothing, nothing)
        with self.autocast():
            logits, penalty = self.module(inputs, targets)
        loss = self._task_loss(logits, targets)
        output = self.regularizer.combine(penalty, task_loss=loss)
        output.loss.backward()
        if penalty.requires_grad:
            self._penalty = penalty.detach()
        return Figures(loss.detach(), self._penalty, output.strength.detach())

    def _task_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)

    def _descend(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate()
        if self.recipe.clip_norm is not None:
            nn.utils.clip_grad_norm_(self.network.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.rounding is not None:
            self.rounding.step()
        self.step += 1

    def learning_rate(self) -> float:
        """Of the step to come: a linear warm-up, then a cosine to 0."""
        total, warm = self.recipe.epochs * self._steps_per_epoch, self.recipe.warmup_epochs * self._steps_per_epoch
        if self.step < warm:
            return self.recipe.learning_rate * (self.step + 1) / (warm + 1)
        return self.recipe.learning_rate * (1 + math.cos(math.pi * (self.step - warm) / (total - warm))) / 2


def _regularizer(recipe: Recipe, generator: torch.Generator) -> LipschitzRegularizer | None:
    if recipe.target_loss is None:
        return None
    chosen = {name: getattr(recipe, name) for name in ("gain", "rise", "fall")}
    given = {name: value for name, value in chosen.items() if value is not None}
    strength = AdaptiveStrength(target_loss=recipe.target_loss, initial=recipe.initial_strength, **given)
    return LipschitzRegularizer(strength=strength, every=recipe.every, generator=generator)


def _wrapped(
    network: nn.Module, regularizer: LipschitzRegularizer | None, recipe: Recipe, processes: Processes
) -> nn.Module:
    """The order matters, see docs/training.md: penalty, then compilation, then the exchange between processes."""
    module = network if regularizer is None else RegularizedModule(network, regularizer)
    if recipe.compile and module is network and not (recipe.sharding == "fsdp2" and processes.size > 1):
        module = cast("nn.Module", torch.compile(network))  # beside the bare one, whose gradients are measured
    elif recipe.compile:
        module.compile()
    if processes.size == 1:
        return module
    if recipe.sharding == "fsdp2":
        fully_shard(module)
        return module
    return DistributedDataParallel(module, device_ids=[processes.device] if processes.device.type == "cuda" else None)


def _optimizer(network: nn.Module, recipe: Recipe) -> Optimizer:
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in trained if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "adamw":
        return AdamW(groups, lr=recipe.learning_rate)
    return SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def _mixing(recipe: Recipe, classes: int) -> v2.Transform | None:
    kinds: list[v2.Transform] = []
    if recipe.mixup:
        kinds.append(v2.MixUp(alpha=recipe.mixup, num_classes=classes))
    if recipe.cutmix:
        kinds.append(v2.CutMix(alpha=recipe.cutmix, num_classes=classes))
    return v2.RandomChoice(kinds) if kinds else None
