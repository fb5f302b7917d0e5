"""A soak: thousands of attribution, ARA and training calls in one process, and what they leave behind.

    python benchmarks/soak.py --calls 2000

Prints a Markdown table: memory, living tensors, Python objects and hooks at even intervals, and a verdict. After the
warm-up (a fifth of the calls) a figure is flat where the line fitted to it rises by no more than its limit over 1,000
calls. Hooks and tensors have the limit 0, as nothing may be left of a call. The others' limits are above what they
were seen to move by themselves, and below what is left where a single kind of call out of the eleven leaks, each time
that it is made, one object (91 over 1,000 calls) or 1 KiB of memory that holds none (91 KiB). The resident set moves
by a MiB or two with the allocator's moods; what the C library and Python have given out is exact.
The exit status is 1 where something grows.
"""

from __future__ import annotations

import argparse
import gc
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import torch
from leftovers import given_out, hooks_of
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import (
    AdaptiveStrength,
    AdversarialAttribution,
    AdversarialTraining,
    ContrastiveAdversarialAttribution,
    FixedSizeAttack,
    HalfHuberReLU,
    LayerAdversarialAttribution,
    LipschitzRegularizer,
    MinimalAdversarialAttribution,
    MinimumNormAttack,
    PaperAttack,
    RegularizedModule,
    accuracy_robustness_area,
    attach_regularizer,
    local_lipschitz,
)

Call = Callable[[], object]
SHAPE, IMAGES, CLASSES = (3, 20, 20), 4, 4


class Sample(NamedTuple):
    """What there is after so many calls.

    Attributes:
        resident: MiB of the process in memory; 0 where the system does not tell.
        heap: KiB that the C library has given out, tensors' memory included; 0 where it does not tell (glibc does).
        blocks: small pieces of memory that Python has given out.
        tensors: living ones, as the garbage collector knows them.
        tensor_bytes: KiB that they hold.
        objects: Python objects that the garbage collector knows.
        hooks: on the model's modules and parameters, and on all modules.
    """

    calls: int
    resident: float
    heap: float
    blocks: int
    tensors: int
    tensor_bytes: float
    objects: int
    hooks: int


LIMITS = {
    "resident": 4.0, "heap": 64.0, "blocks": 64.0, "tensors": 0.0, "tensor_bytes": 0.0, "objects": 64.0, "hooks": 0.0
}  # fmt: skip
"""The largest rise over 1,000 calls that still counts as flat, in each figure's unit."""


def network() -> nn.Module:
    """A tiny network with all that a careless call leaves a trace in."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3, stride=2),
            nn.BatchNorm2d(4),
            HalfHuberReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(4 * 81, CLASSES),
        ).eval()


def _noise(model: Any, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    del labels
    model(inputs)
    return inputs + sizes[:, None, None, None] * torch.randn_like(inputs).sign()


def calls_of(model: nn.Module) -> dict[str, Call]:
    """Each kind of call, on the same images."""
    images = torch.rand(IMAGES, *SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1)
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=1.0, initial=0.1))
    adversary = AdversarialTraining(attack=PaperAttack(steps=2, rho=0.01))
    module = RegularizedModule(model, regularizer).eval()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def step(loss_of: Callable[[Tensor], Tensor]) -> None:
        model.train()
        loss_of(adversary(model, images, labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
        model.eval()

    def explicit(inputs: Tensor) -> Tensor:
        inputs.requires_grad_()
        logits = model(inputs)
        task_loss = F.cross_entropy(logits, labels)
        return regularizer(logits, inputs, labels, task_loss=task_loss).loss

    def wrapped(inputs: Tensor) -> Tensor:
        logits, penalty = module.train()(inputs, labels)
        return regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss

    def attached() -> None:
        handle = attach_regularizer(model, regularizer)
        step(lambda inputs: F.cross_entropy(model(inputs), labels))
        handle.remove()

    def interrupted() -> None:
        def broken(inputs: Tensor) -> Tensor:
            if inputs.requires_grad:
                raise KeyboardInterrupt
            logits: Tensor = model(inputs)
            return logits

        with suppress(KeyboardInterrupt):
            accuracy_robustness_area(broken, (images, labels))

    fast, data = MinimumNormAttack(steps=4), (images, labels)
    return {
        "AdversarialAttribution": lambda: AdversarialAttribution(model).attribute(images, labels, n_steps=3),
        "ContrastiveAdversarialAttribution": lambda: ContrastiveAdversarialAttribution(model).attribute(
            images, labels, n_steps=3
        ),
        "LayerAdversarialAttribution": lambda: LayerAdversarialAttribution(model, model[0]).attribute(  # type: ignore[index]
            images, labels, n_steps=3
        ),
        "MinimalAdversarialAttribution": lambda: MinimalAdversarialAttribution(model).attribute(images, n_steps=4),
        "accuracy_robustness_area": lambda: accuracy_robustness_area(model, data, attack=fast),
        "interrupted accuracy_robustness_area": interrupted,
        "FixedSizeAttack": lambda: FixedSizeAttack(_noise, rounds=3)(model, images, labels),
        "local_lipschitz": lambda: local_lipschitz(model, images, iterations=3),
        "training, explicit loss": lambda: step(explicit),
        "training, RegularizedModule": lambda: step(wrapped),
        "training, attach_regularizer": attached,
    }


def _held(tensor: Tensor) -> tuple[int, int] | None:
    """Where a tensor's memory is, and its bytes; nothing for those without: sparse ones, a compiler's stand-ins."""
    try:
        storage = tensor.untyped_storage()
        return storage.data_ptr(), storage.nbytes()
    except (NotImplementedError, RuntimeError):
        return None


def measured(calls: int, model: nn.Module) -> Sample:
    """What there is now."""
    gc.collect()
    heap, blocks = given_out(), sys.getallocatedblocks()  # before the looking itself takes some
    objects = gc.get_objects()
    tensors = [item for item in objects if issubclass(type(item), Tensor)]
    held = dict(filter(None, map(_held, tensors)))
    status = Path("/proc/self/statm")
    pages = int(status.read_text(encoding="utf-8").split()[1]) if status.exists() else 0
    size = sum(held.values()) / 1024
    return Sample(calls, pages / 256, heap, blocks, len(tensors), size, len(objects), hooks_of(model))


def soak(calls: Sequence[Call], model: nn.Module, *, number: int, samples: int) -> list[Sample]:
    """Make ``number`` calls in turn, and look ``samples`` times, after the warm-up first and at the end last."""
    start = number // 5
    looks = {start + (number - start) * k // (samples - 1) for k in range(samples)}
    found = []
    for done in range(1, number + 1):
        calls[done % len(calls)]()
        if done in looks:
            found.append(measured(done, model))
    return found


def rises(samples: Sequence[Sample]) -> dict[str, float]:
    """By how much the line of least squares through each figure rises over 1,000 calls."""
    calls = torch.tensor([sample.calls for sample in samples], dtype=torch.float64)
    centred = calls - calls.mean()
    found = {}
    for name in LIMITS:
        values = torch.tensor([getattr(sample, name) for sample in samples], dtype=torch.float64)
        found[name] = 1000 * float((centred * (values - values.mean())).sum() / centred.square().sum())
    return found


def growing(samples: Sequence[Sample]) -> dict[str, float]:
    """The figures that rise by more than their limit, with their rise over 1,000 calls; none where all is flat."""
    slack = 1e-9  # rounding of a constant figure
    return {name: rise for name, rise in rises(samples).items() if rise > LIMITS[name] + slack}


def table(samples: Sequence[Sample]) -> str:
    """The samples, their rise and its limits as Markdown."""
    lines = [
        "| calls | resident, MiB | heap, KiB | blocks | tensors | tensors, KiB | objects | hooks |",
        "| ---: " * 8 + "|",
    ]
    lines += [
        f"| {s.calls} | {s.resident:.1f} | {s.heap:.1f} | {s.blocks} | {s.tensors} | {s.tensor_bytes:.1f} "
        f"| {s.objects} | {s.hooks} |"
        for s in samples
    ]
    rise = rises(samples)
    lines.append("| rise over 1,000 calls | " + " | ".join(f"{rise[name]:.2f}" for name in LIMITS) + " |")
    lines.append("| limit | " + " | ".join(f"{limit:g}" for limit in LIMITS.values()) + " |")
    return "\n".join(lines)


def main() -> int:
    """Soak, print the table and the verdict."""
    parser = argparse.ArgumentParser(description="Calls in their thousands, and what they leave behind.")
    parser.add_argument("--calls", type=int, default=2000, help="1,000 at least for a verdict (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=9, help="rows of the table (default: %(default)s)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = network()
    calls = calls_of(model)
    samples = soak(list(calls.values()), model, number=arguments.calls, samples=arguments.samples)
    print(f"{arguments.calls} calls, in turn: {', '.join(calls)}.\n\n{table(samples)}\n")
    found = growing(samples)
    print("Flat: nothing grows." if not found else f"Grows over 1,000 calls: {found}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
