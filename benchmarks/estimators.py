"""What lower variance of the penalty's gradient costs: fewer steps, part of a batch, several draws, all classes.

    python benchmarks/estimators.py [--draws 100] [--repeats 9]

A digits network, trained for some epochs as the demo does, on one batch, with BatchNorm's statistics fixed: so images
do not touch each other, and every estimator has the same expectation. Variance is that of the penalty's parameter
gradient, relative to the squared size of its expectation; it includes which part of the batch is taken. Cost is that of
a step over a plain one, measured in turns. Prints Markdown.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
from records import machine
from stopwatch import Stopwatch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, HalfHuberReLU, LipschitzRegularizer
from captum_lipschitz.demo.digits import build_network, load_digits
from captum_lipschitz.demo.training import train
from captum_lipschitz.training import RegularizedModule

_BATCH = 64
_EPOCHS = 8


def main() -> None:
    """Train, then measure variance and cost of each estimator."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--repeats", type=int, default=9)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(machine("cpu"), flush=True)
    digits = load_digits()
    model = build_network(HalfHuberReLU, seed=0)
    strength = AdaptiveStrength(target_loss=0.1, initial=100.0)
    regularizer = LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(0))
    train(
        model,
        digits.train_images,
        digits.train_labels,
        epochs=_EPOCHS,
        seed=0,
        regularizer=regularizer,
        show_progress=False,
    )
    batch = digits.train_images[:_BATCH], digits.train_labels[:_BATCH]
    estimators = _estimators(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.eval()
    expectation = _gradient(estimators["all classes"][0], *batch)
    costs = _costs(model, {name: estimator[0] for name, estimator in estimators.items()}, *batch, arguments.repeats)
    print("\n| estimator | relative variance | step / plain step | extra cost x variance |\n| --- | --- | --- | --- |")
    for name, (module, every) in estimators.items():
        count = 1 if name == "all classes" else arguments.draws
        errors = [_gradient(module, *batch) - expectation for _ in range(count)]
        variance = statistics.mean(float(error.square().sum()) for error in errors) / float(expectation.square().sum())
        # Of k steps one has k times the penalty: for their mean, k times the variance of one that is formed.
        variance, cost = every * variance, 1 + (costs[name] - 1) / every
        print(f"| {name} | {variance:.4f} | {cost:.2f} | {(cost - 1) * variance:.4f} |", flush=True)


def _estimators(model: nn.Module) -> dict[str, tuple[RegularizedModule, int]]:
    """By name: forms the penalty, and on which steps."""

    def made(draws: int | Literal["all"], share: float = 1.0) -> RegularizedModule:
        generator = torch.Generator().manual_seed(1)
        regularizer = LipschitzRegularizer(strength=1.0, draws_per_image=draws, generator=generator)
        return RegularizedModule(model.train(), regularizer, sub_batch=share)

    return {
        "one draw (exact double backward)": (made(1), 1),
        "2 draws": (made(2), 1),
        "4 draws": (made(4), 1),
        "all classes": (made("all"), 1),
        "half of the batch": (made(1, 0.5), 1),
        "quarter of the batch": (made(1, 0.25), 1),
        "every=4": (made(1), 4),
        "every=8": (made(1), 8),
    }


def _gradient(module: RegularizedModule, images: Tensor, labels: Tensor) -> Tensor:
    """Of one estimate of the penalty with respect to all parameters, flat."""
    parameters = list(module.parameters())
    _, penalty = module(images, labels)
    slopes = torch.autograd.grad(penalty, parameters, allow_unused=True, materialize_grads=True)
    return torch.cat([slope.flatten() for slope in slopes]).double()


def _costs(
    model: nn.Module, modules: dict[str, RegularizedModule], images: Tensor, labels: Tensor, repeats: int
) -> dict[str, float]:
    """Of a step with each estimator, over a plain one: forward and backward pass."""

    def plain() -> None:
        model.zero_grad()
        F.cross_entropy(model(images), labels).backward()

    def penalised(module: RegularizedModule) -> None:
        model.zero_grad()
        logits, penalty = module(images, labels)
        (F.cross_entropy(logits, labels) + penalty).backward()

    steps: dict[str, tuple[Callable[[], None], int]] = {
        name: (partial(penalised, module), 1) for name, module in modules.items()
    }
    for step, _ in steps.values():
        step()
    timings = Stopwatch(torch.device("cpu"), block=10).take_turns(plain, steps, rounds=repeats)
    return {name: statistics.median(timings[name].ratios) for name in modules}


if __name__ == "__main__":
    main()
