"""What an explanation costs, beside Captum's methods, on real images: time, forward passes and memory.

    python benchmarks/attribution.py FOLDER
    python benchmarks/attribution.py FOLDER --rounds 5 --only "IntegratedGradients, 50 steps" "Adversarial, 35 steps"
    python benchmarks/attribution.py FOLDER --network squeezenet --device cuda

The authors' CIFAR-10 network, or SqueezeNet 1.0 on ImageNet images, which takes an hour on a CPU. Every method explains
the same images and runs at most as many rows at once as there are images. The first two take turns, as the ratio of
their times is what is asked for; the others are timed once. Memory is the most that tensors held at any moment of a
whole explanation, on the CPU beside the model and the images. Prints Markdown.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from captum.attr import GradientShap, IntegratedGradients, KernelShap, Occlusion
from networks import load
from records import machine
from stopwatch import Stopwatch
from torch import Tensor, nn

from captum_lipschitz import (
    AdversarialAttribution,
    ContrastiveAdversarialAttribution,
    LayerAdversarialAttribution,
    MinimalAdversarialAttribution,
)

REFERENCE, OURS = "IntegratedGradients, 50 steps", "Adversarial, 35 steps"
_SHAP_SAMPLES = 8
_LAYERS = {"robust": "pipe.3", "standard": "pipe.3", "squeezenet": "features.12"}  # the last one of many channels
_WINDOWS = 8  # on a side of an image, for Occlusion, which moves them by half; and KernelShap's squares
_KERNEL_SAMPLES = 50


@dataclass(frozen=True)
class Cost:
    """One method's, for all images together.

    Attributes:
        seconds: by the clock, median.
        ratio: over integrated gradients; of those that took turns, the median of the pairs' ratios.
        rounds: how often it was timed.
        passes: calls of the model.
        rows: images that went through it, as often as they did.
        most_rows: in one call.
        mebibytes: most held by tensors at once.
    """

    method: str
    seconds: float
    ratio: float
    rounds: int
    passes: int
    rows: int
    most_rows: int
    mebibytes: float


def main() -> None:
    """Time, count and print."""
    arguments = _arguments()
    task = load(arguments.data, arguments.network, first=0, count=arguments.images)
    device = torch.device(arguments.device)
    model, images = task.model.to(device), task.images.to(device)
    methods = _methods(model, images, task.labels.to(device), layer=_LAYERS[arguments.network])
    chosen = {name: run for name, run in methods.items() if not arguments.only or name in arguments.only}
    costs = _costs(model, chosen, Stopwatch(device, block=1), rounds=arguments.rounds)
    print(machine(arguments.device), _table(costs), sep="\n\n")
    if arguments.output:
        about = {"machine": machine(arguments.device), "images": len(images)}
        text = json.dumps({**about, "costs": [asdict(cost) for cost in costs]}, indent=1)
        arguments.output.write_text(text + "\n", encoding="utf-8")


def _methods(model: nn.Module, images: Tensor, labels: Tensor, *, layer: str) -> dict[str, Callable[[], object]]:
    """By name, an explanation of all images' labels, with no more rows at once than images."""
    size = len(images)
    window = images.shape[3] // _WINDOWS

    def shap() -> object:
        part = max(1, size // _SHAP_SAMPLES)  # every image is in the batch as often as it has samples
        black = torch.zeros_like(images[:1])
        return [
            GradientShap(model).attribute(some, baselines=black, target=target, n_samples=_SHAP_SAMPLES)
            for some, target in zip(images.split(part), labels.split(part), strict=True)
        ]

    return {
        REFERENCE: lambda: IntegratedGradients(model).attribute(
            images, target=labels, n_steps=50, internal_batch_size=size
        ),
        OURS: lambda: AdversarialAttribution(model).attribute(images, labels, internal_batch_size=size),
        "Contrastive, 35 steps": lambda: ContrastiveAdversarialAttribution(model).attribute(images, labels),
        "Minimal, fast": lambda: MinimalAdversarialAttribution(model).attribute(images, labels, effort="fast"),
        f"Layer ({layer}), 35 steps": lambda: LayerAdversarialAttribution(model, model.get_submodule(layer)).attribute(
            images, labels
        ),
        f"GradientShap, {_SHAP_SAMPLES} samples": shap,
        f"Occlusion, windows of {window} every {window // 2}": lambda: Occlusion(model).attribute(
            images, (3, window, window), target=labels, strides=(3, window // 2, window // 2)
        ),
        f"KernelShap, {_KERNEL_SAMPLES} samples": lambda: KernelShap(model).attribute(
            images,
            target=labels,
            feature_mask=_squares(images, window),
            n_samples=_KERNEL_SAMPLES,
            perturbations_per_eval=size,
        ),
    }


def _squares(images: Tensor, side: int) -> Tensor:
    """Squares of pixels, numbered, (1, 1, H, W)."""
    height, width = images.shape[2:]
    down = torch.arange(height, device=images.device) // side
    across = torch.arange(width, device=images.device) // side
    return (down[:, None] * (int(across.max()) + 1) + across)[None, None]


def _costs(model: nn.Module, methods: dict[str, Callable[[], object]], watch: Stopwatch, *, rounds: int) -> list[Cost]:
    ours = {OURS: (methods[OURS], 1)} if OURS in methods else {}
    timings = watch.take_turns(methods[REFERENCE], ours, rounds=rounds)
    reference = timings["plain"].median_seconds
    costs = []
    for name, run in methods.items():
        if name in (REFERENCE, OURS):
            timing = timings["plain" if name == REFERENCE else name]
            seconds, times = timing.median_seconds, len(timing.seconds)
            ratio = statistics.median(timing.ratios)
        else:
            seconds, times = watch.seconds(run, 1).wall, 1
            ratio = seconds / reference
        with _counting(model) as sizes:
            mebibytes = watch.peak_bytes(run, 1, held=0) / 2**20
        costs.append(Cost(name, seconds, ratio, times, len(sizes), sum(sizes), max(sizes), mebibytes))
    return costs


@contextmanager
def _counting(model: nn.Module) -> Iterator[list[int]]:
    """The rows in every call of the model."""
    sizes: list[int] = []

    def note(_: nn.Module, inputs: tuple[Any, ...]) -> None:
        sizes.append(len(inputs[0]))

    with model.register_forward_pre_hook(note):
        yield sizes


def _table(costs: list[Cost]) -> str:
    lines = [
        "| method | seconds | over IntegratedGradients | timed | model calls | rows | most rows in a call | MiB |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {c.method} | {c.seconds:.1f} | {c.ratio:.3f} | {c.rounds} | {c.passes} | {c.rows} | {c.most_rows} | "
        f"{c.mebibytes:.0f} |"
        for c in costs
    ]
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the real data")
    parser.add_argument("--network", choices=_LAYERS, default="robust")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3, help="how often the first two take turns")
    parser.add_argument("--only", nargs="+", metavar="METHOD", help=f"by name; {REFERENCE!r} must be among them")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="where to put everything as JSON")
    arguments = parser.parse_args()
    if arguments.only and REFERENCE not in arguments.only:
        parser.error(f"--only: expected {REFERENCE!r} among them, as it is what the others are held against")
    return arguments


if __name__ == "__main__":
    main()
