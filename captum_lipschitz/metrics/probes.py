"""The evidence behind doubts: what a few more passes of a model tell about a measurement. Pure functions.

A ``Problem`` holds the model, in evaluation mode, and the images to be looked at, none of which meets the criterion.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import gradient
from captum_lipschitz.attacks import MinimumNormAttack, Problem
from captum_lipschitz.errors import DisconnectedModelError
from captum_lipschitz.geometry import Norm, rowwise

_DIRECTIONS = 8  # random directions, and as many toward other images
_BORROWED = 4  # gradients of other images
_BEATEN = 0.99  # a blind direction wins where its size is below so much of the attack's distance
_BISECTIONS = 8


class Slopes(NamedTuple):
    """The criterion at the images: its value (N,), its gradient (N, ...) and which gradients are finite (N,) bool."""

    value: Tensor
    gradient: Tensor
    finite: Tensor


def change_between_runs(problem: Problem) -> float:
    """Largest change of a logit between two runs of the same images, relative to the logits' spread."""
    first, second = _logits(problem, problem.inputs), _logits(problem, problem.inputs)
    return _relative_change(first, second, first)


def change_among_copies(problem: Problem) -> float:
    """Largest change of an image's logits where its neighbours are replaced by copies of itself, likewise relative.

    The batch keeps its shape, so the kernels and their rounding stay the same. The first and last image are tried.
    """
    together = _logits(problem, problem.inputs)
    changes = [0.0]
    for row in {0, len(problem) - 1} if len(problem) > 1 else ():
        copies = _logits(problem, problem.inputs[row : row + 1].expand_as(problem.inputs).contiguous())
        changes.append(_relative_change(together[row], copies[row], together))
    return max(changes)


def slopes(problem: Problem) -> Slopes:
    """Value and gradient of the criterion at every image, one gradient evaluation each; zeros where there is none."""
    leaf = problem.inputs.detach().clone().requires_grad_()
    logits = problem.criterion.check_logits(problem.model(leaf), len(problem), finite=False)
    value = problem.criterion.value(logits, problem.labels)
    try:
        found = gradient(value, leaf)
    except DisconnectedModelError:  # measured by an attack that needs no gradient
        found = torch.zeros_like(leaf)
    finite = torch.isfinite(found.flatten(1)).all(1)
    found = torch.where(rowwise(finite, found), found, torch.zeros_like(found))
    return Slopes(value.detach(), found, finite)


def linearised_distances(at: Slopes, norm: Norm) -> Tensor:
    """How far each image is from the criterion if its gradient were the same everywhere, (N,); ``inf`` where zero."""
    return norm.distance_to_hyperplane(at.value, at.gradient)


def extent(images: Tensor, norm: Norm) -> float:
    """How far images are from each other and from zero: the larger of the two medians; 1 for images of zeros."""
    apart = norm.size(images - images.roll(1, 0)).median()
    found = float(torch.maximum(apart, norm.size(images).median()))
    return found if found > 0 else 1.0


def resolution(problem: Problem, value: Tensor) -> Tensor:
    """One rounding step of the largest logit relative to the criterion's value, (N,)."""
    logits = _logits(problem, problem.inputs)
    step = logits.abs().amax(1).double() * torch.finfo(logits.dtype).eps
    return step / value.double().abs().clamp(min=torch.finfo(torch.float64).tiny)


def blind_sizes(
    problem: Problem, norm: Norm, distances: Tensor, pool: Tensor, at: Slopes, generator: torch.Generator
) -> Tensor:
    """The smallest size, (N,), at which a direction succeeds that was chosen without a gradient of the image itself.

    Random directions, those toward other images, and other images' gradients are tried at 0.99 of the attack's
    distance, and where one succeeds it is shortened by bisection. Forward passes only, at most 28 per image.

    Args:
        problem: N images.
        norm: what sizes are measured in.
        distances: (N,), what the attack found; ``inf`` where nothing.
        pool: other images, (M, ...), toward which to go; the problem's own may be among them.
        at: the criterion at the images.
        generator: of the random directions, on the CPU.

    Returns:
        Sizes, (N,), below ``distances`` where a blind direction won, else ``distances``.
    """
    reach = torch.full_like(distances, extent(problem.inputs, norm))
    best = distances.clone()
    winner = torch.zeros_like(problem.inputs)
    for direction, full in _blind_directions(problem, norm, pool, at, generator):
        # Where the attack found nothing, a direction is tried at full length: to the other image, or images' extent.
        limit = torch.where(torch.isinf(best), torch.where(full > 0, full, reach), _BEATEN * best)
        delta = rowwise(limit.to(direction.dtype), direction) * direction
        size, met = _tried(problem, norm, delta)
        won = met & (size <= torch.where(torch.isinf(best), size, _BEATEN * best * (1 + 1e-6)))
        best = torch.where(won, size, best)
        winner = torch.where(rowwise(won, winner), delta, winner)
    return _bisected(problem, norm, winner, best, best < distances)


def distances_with_more_effort(problem: Problem, norm: Norm, distances: Tensor) -> Tensor:
    """The smaller of ``distances`` and those of ``MinimumNormAttack(effort="thorough")``, (N,).

    ``distances`` as they are for a model without a gradient, measured by an attack that needs none.
    """
    attack = MinimumNormAttack(effort="thorough", norm=norm, bounds=problem.bounds)
    try:
        found = attack(problem.model, problem.inputs, problem.labels, problem.criterion)
    except DisconnectedModelError:
        return distances
    return torch.minimum(found.distances.to(distances.dtype), distances)


def _logits(problem: Problem, images: Tensor) -> Tensor:
    with torch.no_grad():
        return problem.criterion.check_logits(problem.model(images), len(images), finite=False).detach()


def _relative_change(first: Tensor, second: Tensor, spread_of: Tensor) -> float:
    difference = (first - second).double().abs()
    if not bool(torch.isfinite(difference).all()):
        return 0.0 if torch.equal(torch.isfinite(first), torch.isfinite(second)) else math.inf
    spread = (spread_of - spread_of.mean(1, keepdim=True)).double().abs().max()
    return float(difference.max() / spread.clamp(min=torch.finfo(torch.float64).tiny))


def _blind_directions(
    problem: Problem, norm: Norm, pool: Tensor, at: Slopes, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Directions of size 1, (N, ...), each with the length that it has by nature, (N,), or 0 where it has none."""
    inputs = problem.inputs
    none = torch.zeros(len(inputs), dtype=inputs.dtype, device=inputs.device)
    for k in range(1, 1 + min(_BORROWED, len(inputs) - 1)):
        yield -norm.steepest(at.gradient.roll(k, 0)), none
    for k in range(1, 1 + min(_DIRECTIONS, len(pool) - 1)):
        toward = pool.roll(-k, 0)[torch.arange(len(inputs), device=pool.device) % len(pool)] - inputs
        yield norm.normalised(toward), norm.size(toward)
    for _ in range(_DIRECTIONS):
        noise = torch.randn(inputs.shape, generator=generator, dtype=torch.float32).to(inputs)
        yield norm.steepest(noise), none


def _tried(problem: Problem, norm: Norm, delta: Tensor) -> tuple[Tensor, Tensor]:
    """Size within the bounds, (N,) as float64, and whether the criterion is met, (N,)."""
    size = norm.size(problem.images(delta) - problem.inputs).double()
    return size, (problem.value(delta) <= 0) & torch.isfinite(size) & (size > 0)


def _bisected(problem: Problem, norm: Norm, delta: Tensor, size: Tensor, won: Tensor) -> Tensor:
    """The sizes after shortening the perturbations of the rows that won."""
    rows = won.nonzero().squeeze(1)
    if not len(rows):
        return size
    part, delta = problem.rows(rows), delta[rows]
    near, far = torch.zeros_like(size[rows]), torch.ones_like(size[rows])
    best = size.clone()
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        smaller, met = _tried(part, norm, rowwise(middle.to(delta.dtype), delta) * delta)
        best[rows] = torch.where(met, torch.minimum(smaller, best[rows]), best[rows])
        near, far = torch.where(met, near, middle), torch.where(met, middle, far)
    return best
