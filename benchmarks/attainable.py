"""How much smaller could the distances be? ``thorough`` on the authors' network, then restart after restart.

    python benchmarks/attainable.py FOLDER [--images 64] [--rounds 12]

FOLDER holds ``cifar10_subset.npz`` and ``authors-cifar10/``. Every round starts anew from random perturbations toward
each of the nine other classes and keeps what is smaller; the kinds of perturbations take turns. Prints, round by round,
the geometric mean ratio to the distances that the authors published. Where it stops falling, more search is of no use.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import torch
from networks import load
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz import RMSE, MinimumNormAttack
from captum_lipschitz.attacks.minimum_norm import Effort, Stage
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.attacks.tracks import Tracks
from captum_lipschitz.geometry import rowwise

_PLAN = Effort(
    10_000, 9, (Stage(9, 12, along=True), Stage(9, 8), Stage(3, 25))
)  # then one track until it gains no more
_FACTORS = (-0.5, 1.2)  # starts are exp(uniform) times as large as the best answer so far
_UNTOUCHED = 0.7  # share of an image that patches leave alone

Draw = Callable[[Tensor, Tensor, torch.Generator], Tensor]
"""``(images, best perturbations so far, generator) -> directions``, all (N, C, H, W)."""


def _white(images: Tensor, best: Tensor, generator: torch.Generator) -> Tensor:
    del best
    return torch.randn(images.shape, generator=generator)


def _smooth(images: Tensor, best: Tensor, generator: torch.Generator, *, cells: int = 4) -> Tensor:
    del best
    coarse = torch.randn(*images.shape[:2], cells, cells, generator=generator)
    return F.interpolate(coarse, size=images.shape[2:], mode="bicubic")


def _patches(images: Tensor, best: Tensor, generator: torch.Generator) -> Tensor:
    chosen = F.interpolate(torch.rand(len(images), 1, 4, 4, generator=generator), size=images.shape[2:]) > _UNTOUCHED
    return _smooth(images, best, generator, cells=8) * chosen


def _other_images(images: Tensor, best: Tensor, generator: torch.Generator) -> Tensor:
    del best
    return images[torch.randint(len(images), (len(images),), generator=generator)] - images


def _around_the_best(images: Tensor, best: Tensor, generator: torch.Generator) -> Tensor:
    return RMSE().normalised(best) + 0.7 * _smooth(images, best, generator, cells=8)


KINDS: dict[str, Draw] = {
    "white noise": _white,
    "smooth noise": _smooth,
    "patches": _patches,
    "other images": _other_images,
    "noise around the best": _around_the_best,
}


class Restart(MinimumNormAttack):
    """``MinimumNormAttack`` from random perturbations, one toward each alternative, about as large as the best known.

    Args:
        draw: gives their directions.
        best: the best perturbations so far of the images that are open, (n, ...).
        generator: of the draws.
    """

    def __init__(self, draw: Draw, best: Tensor, generator: torch.Generator) -> None:
        super().__init__()
        self.plan = _PLAN
        self._draw, self._best, self._generator = draw, best, generator

    def _start(self, problem: Problem, spent: Tensor) -> Tracks:
        del spent  # forward passes only
        values = problem.criterion.alternatives(problem.logits(torch.zeros_like(problem.inputs)), problem.labels)
        routes = values.topk(self.plan.candidates, dim=1, largest=False).indices
        starts = [self._perturbation(problem.inputs) for _ in range(self.plan.candidates)]
        return Tracks(torch.stack(starts, 1), routes, overshoot=0.02)

    def _perturbation(self, inputs: Tensor) -> Tensor:
        directions = self.norm.normalised(self._draw(inputs, self._best, self._generator))
        factors = torch.empty(len(inputs)).uniform_(*_FACTORS, generator=self._generator).exp()
        return rowwise(factors * self.norm.size(self._best), inputs) * directions


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    task = load(arguments.folder, "robust", first=0, count=arguments.images)
    result = MinimumNormAttack(effort="thorough")(task.model, task.images, task.labels)
    rows = (result.distances > 0).nonzero().squeeze(1)
    images, labels, published = task.images[rows], task.labels[rows], task.published["misclassified"][rows]
    best, sizes = result.adversarial_inputs[rows] - images, result.distances[rows]
    gradients = result.gradient_evaluations[rows].double().mean()
    print(f"- thorough: {_ratio(sizes, published)} over {len(rows)} images, {gradients:.0f} gradients an image")
    generator = torch.Generator().manual_seed(arguments.seed)
    for number in range(arguments.rounds):
        kind = list(KINDS)[number % len(KINDS)]
        again = Restart(KINDS[kind], best, generator)(task.model, images, labels)
        smaller = again.distances < sizes
        best = torch.where(rowwise(smaller, best), again.adversarial_inputs - images, best)
        gained = int((again.distances < 0.998 * sizes).sum())
        sizes = torch.minimum(sizes, again.distances)
        gradients += again.gradient_evaluations.double().mean()
        print(
            f"- round {number + 1}, {kind}: {_ratio(sizes, published)}, {gained} images more than 0.2% smaller, "
            f"{gradients:.0f} gradients an image so far",
            flush=True,
        )


def _ratio(sizes: Tensor, published: Tensor) -> str:
    return f"ratio {(sizes / published).log().mean().exp():.4f}"


if __name__ == "__main__":
    main()
