"""Each image's smallest size at which an attack of given size succeeds: bracketed, then bisected."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

from captum_lipschitz.attacks.base import Found
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Norm

_START = (1e-4, 0.1)  # limits of the first size, relative to the largest: runs that are too large may also fail
_REACH = 1024.0  # the largest size, relative to the linearised distance, where there are no bounds to give one


class SizedRun(Protocol):
    """One run of an attack of given size on some of a problem's images."""

    def __call__(self, problem: Problem, rows: Tensor, sizes: Tensor, /) -> tuple[Tensor, Tensor | int]:
        """Perturb the images of ``problem``, each by its own size.

        Args:
            problem: of n images.
            rows: (n,), which images of the whole problem they are.
            sizes: (n,), positive, in the norm's units; float32 or float64.

        Returns:
            Perturbations, (n, ...), and gradients spent on each image, (n,) or one number for all.
        """


def check_search(*, tolerance: float, rounds: int, largest: float | None) -> None:
    """Raise ``InvalidInputError`` for settings of ``smallest_perturbations`` that are out of their range."""
    if not 0 < tolerance < 1:
        raise InvalidInputError(f"tolerance: expected a share in (0, 1), got {tolerance}")
    if rounds < 1:
        raise InvalidInputError(f"rounds: expected at least 1, got {rounds}")
    if largest is not None and not 0 < largest < float("inf"):
        raise InvalidInputError(f"largest: expected a positive size, or None, got {largest}")


def smallest_perturbations(
    problem: Problem, run: SizedRun, *, norm: Norm, tolerance: float, rounds: int = 40, largest: float | None = None
) -> Found:
    """Search for each image's smallest size at which ``run`` succeeds.

    The first size is the image's linearised distance to the boundary (1 where there is no gradient), between 0.01 and
    10% of the largest. It is doubled until a run succeeds, then the
    interval between the largest failure and the smallest success is bisected. The model is run on every answer, and a
    success counts with the size that the perturbation really has, not with the size asked for. An image leaves the
    batch when its interval is small enough or when the largest size has failed.

    Args:
        problem: the images.
        run: see ``SizedRun``.
        norm: what sizes are measured in.
        tolerance: an image is done where its interval is this small relative to its upper end, in (0, 1).
        rounds: runs at most, at least 1, for all images together as for each: an image takes part in each at most once.
        largest: the size after which an image is given up, in the norm's units; ``None`` takes the way to the
            bounds' farthest corner; without bounds, 1024 times the linearised distance.

    Returns:
        The perturbations, which of them succeeded, and the gradients: a run's as it reports them, and one for the
        linearisation.
    """
    check_search(tolerance=tolerance, rounds=rounds, largest=largest)
    sizes = _Sizes(problem, norm, tolerance, largest)
    spent = torch.ones(len(problem), dtype=torch.int64, device=problem.inputs.device)
    for _ in range(rounds):
        rows = sizes.undecided()
        if not len(rows):
            break
        part = problem.rows(rows)
        perturbations, gradients = run(part, rows, sizes.next[rows])
        sizes.learn(rows, part, perturbations)
        spent[rows] += gradients
    return Found(sizes.best, torch.isfinite(sizes.best_size), spent)


class _Sizes:
    """What is known of each image's smallest size.

    Attributes:
        lower: (N,), the largest size that failed; 0 at first.
        upper: (N,), the smallest size that succeeded, as asked for or as it came out, whichever is smaller; ``inf``
            at first.
        next: (N,), the size to try.
        best: the smallest perturbations that succeeded, shaped as the inputs.
        best_size: (N,), their sizes as they are; ``inf`` at first.
    """

    def __init__(self, problem: Problem, norm: Norm, tolerance: float, largest: float | None) -> None:
        self._tolerance = tolerance
        self._norm = norm
        self.best = torch.zeros_like(problem.inputs)
        clean = problem.evaluate(self.best)
        linearised = norm.distance_to_hyperplane(precise(clean.value), precise(clean.gradient))
        linearised = torch.where(torch.isfinite(linearised), linearised, torch.ones_like(linearised))
        self._largest = _largest(problem, norm, linearised, largest)
        self.lower = torch.zeros_like(self._largest)
        self.upper = torch.full_like(self._largest, torch.inf)
        self.best_size = self.upper.clone()
        self.next = torch.minimum(linearised.clamp(min=_START[0] * self._largest), _START[1] * self._largest)

    def undecided(self) -> Tensor:
        """Index of the images to go on with: neither bracketed closely enough, nor beyond reach."""
        solved = torch.isfinite(self.upper) & (self.upper - self.lower <= self._tolerance * self.upper)
        beyond = torch.isinf(self.upper) & (self.lower >= self._largest)
        return (~(solved | beyond)).nonzero().squeeze(1)

    def learn(self, rows: Tensor, part: Problem, perturbations: Tensor) -> None:
        """Run the model on one run's answers and take in what came of them."""
        size = self._norm.size(precise(part.images(perturbations)) - precise(part.inputs))
        asked, met = self.next[rows], part.value(perturbations) <= 0
        better = met & (size < self.best_size[rows])
        self.best[rows[better]] = perturbations[better]
        self.best_size[rows[better]] = size[better]
        succeeded = torch.minimum(self.upper[rows], torch.minimum(asked, size))
        self.upper[rows] = torch.where(met, succeeded, self.upper[rows])
        self.lower[rows] = torch.where(met, self.lower[rows], asked)
        doubled = torch.minimum(2 * self.next, self._largest)
        self.next = torch.where(torch.isfinite(self.upper), (self.lower + self.upper) / 2, doubled)


def _largest(problem: Problem, norm: Norm, linearised: Tensor, largest: float | None) -> Tensor:
    """The size after which each image is given up, (N,)."""
    if largest is not None:
        return torch.full_like(linearised, largest)
    if problem.bounds is None:
        return _REACH * linearised.clamp(min=torch.finfo(linearised.dtype).tiny)
    inputs = precise(problem.inputs)
    return norm.size(torch.maximum(problem.bounds.upper - inputs, inputs - problem.bounds.lower))


def precise(values: Tensor) -> Tensor:
    """In float32 at least: sizes of half-precision images are compared in it."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
