"""Methods compared at equal accuracy: curves of area against accuracy, interpolated, resampled together."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.area import percentile_interval, resample_counts, weighted_areas
from cifar10_training.measuring import area_of
from cifar10_training.runs import Run

_RESAMPLES = 2000
_SEED = 0


class Point(NamedTuple):
    """One network on a curve: all that a resample of the images needs.

    Attributes:
        correct: (M,) float64, of all test images.
        distances: (N,) float64, of the first N of them.
        chance: a0.
    """

    correct: Tensor
    distances: Tensor
    chance: float

    @classmethod
    def of(cls, run: Run) -> Point:
        """From a run's results."""
        area = area_of(run.figures["attack"])
        return cls(torch.tensor(run.figures["correct"]).double(), area.distances, area.chance_accuracy)


class Sample(NamedTuple):
    """How often each image is in each of B resamples: ``attacked`` (B, N), ``others`` (B, M - N), float64."""

    attacked: Tensor
    others: Tensor

    def accuracy(self, point: Point) -> Tensor:
        """Of all images, (B,)."""
        count = self.attacked.shape[1]
        right = self.attacked @ point.correct[:count] + self.others @ point.correct[count:]
        return right / len(point.correct)

    def area(self, point: Point) -> Tensor:
        """Of the attacked images, (B,)."""
        return weighted_areas(point.distances, self.attacked, point.chance)


@dataclass(frozen=True)
class Comparison:
    """The areas' ratio of two methods at one accuracy.

    Attributes:
        accuracies: where both curves are read, by seed; the same for all where all their curves have one in common.
        areas: of the first method and of the second, at that accuracy.
        ratio: the first over the second; the geometric mean over seeds.
        interval: 95%, images and seeds resampled together, the same for both methods.
        by_seed: each seed's own ratio.
    """

    accuracies: tuple[float, ...]
    areas: tuple[float, float]
    ratio: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]

    def __str__(self) -> str:
        low, high = self.interval
        seeds = ", ".join(f"{one:.2f}" for one in self.by_seed)
        return f"{self.ratio:.2f} [{low:.2f}, {high:.2f}] at accuracy {self.where}; by seed {seeds}"

    @property
    def where(self) -> str:
        """The accuracies as text, one where they are the same."""
        return " to ".join(dict.fromkeys(f"{one:.3f}" for one in (min(self.accuracies), max(self.accuracies))))


Curves = Sequence[Sequence[Point]]
"""One method's points, by seed: each seed's networks, of several target losses."""


def compare_at_equal_accuracy(first: Curves, second: Curves, *, accuracy: float | None = None) -> Comparison | None:
    """Read both methods' areas at one accuracy, between their networks on either side of it, and take the ratio.

    The logarithm of the area is interpolated linearly in the accuracy, for each seed by itself. Nothing is
    extrapolated: where a resample moves a curve's end past the accuracy, the end itself counts.

    Args:
        first: the numerator's networks, by seed.
        second: the denominator's, as many seeds, in the same order.
        accuracy: where to compare; ``None`` for the middle of the accuracies that all seeds of both methods span, or
            where there are none, for each seed the middle of those that its own two curves span.

    Returns:
        ``None`` where the curves have no accuracy in common, or an area there is 0 or infinite.

    Raises:
        InvalidInputError: no seeds, other seeds, or an accuracy that a curve does not reach.
    """
    if not first or len(first) != len(second):
        raise InvalidInputError(f"second: expected as many seeds as in first, got {len(second)} and {len(first)}")
    accuracies = _places(first, second, accuracy)
    if accuracies is None:
        return None
    whole = next(_samples(first[0][0], 0))
    logs = torch.stack([_readings(curves, whole, accuracies)[:, 0] for curves in (first, second)])
    if not bool(torch.isfinite(logs).all()):
        return None
    resampled = []
    seeds = torch.Generator().manual_seed(_SEED)
    for sample in _samples(first[0][0], _RESAMPLES):
        ratios = _readings(first, sample, accuracies) - _readings(second, sample, accuracies)
        chosen = torch.randint(len(first), ratios.T.shape, generator=seeds)
        resampled.append(ratios.T.gather(1, chosen).mean(1))
    differences = logs[0] - logs[1]
    bounds = percentile_interval(torch.cat(resampled))
    areas = logs.mean(1).exp().tolist()
    return Comparison(
        accuracies=accuracies,
        areas=(areas[0], areas[1]),
        ratio=float(differences.mean().exp()),
        interval=(math.exp(bounds[0]), math.exp(bounds[1])),
        by_seed=tuple(differences.exp().tolist()),
    )


def common_range(curves: Curves) -> tuple[float, float]:
    """The accuracies that every one of the curves spans, (low, high); empty where low is above high."""
    spans = [[float(point.correct.mean()) for point in curve] for curve in curves]
    return max(min(span) for span in spans), min(max(span) for span in spans)


def _places(first: Curves, second: Curves, accuracy: float | None) -> tuple[float, ...] | None:
    """Where each seed's curves are read."""
    low, high = common_range([*first, *second])
    if accuracy is not None and not low <= accuracy <= high:
        raise InvalidInputError(
            f"accuracy: expected one that all curves reach, {low:.4f} to {high:.4f}, got {accuracy}"
        )
    if accuracy is not None or low <= high:
        return ((low + high) / 2 if accuracy is None else accuracy,) * len(first)
    spans = [common_range(pair) for pair in zip(first, second, strict=True)]
    return tuple(sum(span) / 2 for span in spans) if all(start <= end for start, end in spans) else None


def _readings(curves: Curves, sample: Sample, accuracies: Sequence[float]) -> Tensor:
    """Logarithms of the areas at each seed's accuracy, (seeds, B)."""
    pairs = zip(curves, accuracies, strict=True)
    return torch.stack([_reading(curve, sample, accuracy) for curve, accuracy in pairs])


def _reading(curve: Sequence[Point], sample: Sample, accuracy: float) -> Tensor:
    accuracies, order = torch.stack([sample.accuracy(point) for point in curve], 1).sort(1)
    logs = torch.stack([sample.area(point) for point in curve], 1).log().gather(1, order)
    if len(curve) == 1:
        return logs[:, 0]
    above = (accuracies < accuracy).sum(1, keepdim=True).clamp(1, len(curve) - 1)
    (x0, x1), (y0, y1) = ([values.gather(1, above - 1), values.gather(1, above)] for values in (accuracies, logs))
    width = torch.where(x1 > x0, x1 - x0, torch.ones_like(x0))
    share = ((accuracy - x0) / width).clamp(0, 1)
    return (y0 + share * (y1 - y0)).squeeze(1)


def _samples(point: Point, resamples: int) -> Iterator[Sample]:
    """Resamples of the attacked images and of the others, some at a time; for 0 the images as they are."""
    count, rest = len(point.distances), len(point.correct) - len(point.distances)
    if not resamples:
        yield Sample(torch.ones(1, count, dtype=torch.float64), torch.ones(1, rest, dtype=torch.float64))
        return
    generators = [torch.Generator().manual_seed(_SEED + 1 + place) for place in range(2)]
    attacked = torch.cat(list(resample_counts(count, generator=generators[0], resamples=resamples)))
    others = torch.zeros(resamples, 0, dtype=torch.float64)
    if rest:
        others = torch.cat(list(resample_counts(rest, generator=generators[1], resamples=resamples)))
    yield Sample(attacked, others)
