"""Methods compared at equal accuracy: their curves of area against accuracy, read at one place, with an interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from scipy import stats
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.area import resample_counts, weighted_areas
from cifar10_training.measuring import area_of
from cifar10_training.runs import Run

_RESAMPLES = 2000
_SEED = 0
_TAIL = 0.975


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
    """How often each image is in each of B samples: ``attacked`` (B, N), ``others`` (B, M - N), float64."""

    attacked: Tensor
    others: Tensor

    @classmethod
    def whole(cls, point: Point) -> Sample:
        """The images as they are, once each; B is 1."""
        count, rest = len(point.distances), len(point.correct) - len(point.distances)
        return cls(torch.ones(1, count, dtype=torch.float64), torch.ones(1, rest, dtype=torch.float64))

    @classmethod
    def redrawn(cls, point: Point) -> Sample:
        """Drawn with replacement, the attacked among themselves and the others among themselves."""
        parts = []
        for place, count in enumerate((len(point.distances), len(point.correct) - len(point.distances))):
            generator = torch.Generator().manual_seed(_SEED + place)
            drawn = list(resample_counts(count, generator=generator, resamples=_RESAMPLES)) if count else []
            parts.append(torch.cat(drawn) if count else torch.zeros(_RESAMPLES, 0, dtype=torch.float64))
        return cls(*parts)

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
        accuracy: where both curves are read.
        areas: of the first method and of the second there; geometric means over the seeds.
        ratio: the first over the second.
        interval: 95%. Half its width in logarithms is the root of the sum of two squares: 1.96 standard deviations over
            resamples of the images, the same for both methods; and Student's for the seeds, 0 where there is one seed.
        by_seed: each seed's own ratio.
    """

    accuracy: float
    areas: tuple[float, float]
    ratio: float
    interval: tuple[float, float]
    by_seed: tuple[float, ...]

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.ratio:.2f} [{low:.2f}, {high:.2f}]"


Curves = Sequence[Sequence[Point]]
"""One method's networks by seed: those of several settings, such as target losses."""


def compare_at_equal_accuracy(first: Curves, second: Curves, *, accuracy: float | None = None) -> Comparison | None:
    """The largest area that each method reaches with at least some accuracy, one over the other.

    A network that is less accurate than another of its method and no more robust is passed over. Between the others the
    logarithm of the area is interpolated linearly in the accuracy, for each seed by itself; below the least accurate of
    them its area stands. Above the most accurate one nothing is said; where a resample of the images moves that end
    below the accuracy, the end itself counts.

    Args:
        first: the numerator's networks, by seed.
        second: the denominator's, as many seeds, in the same order.
        accuracy: where to compare; ``None`` for the middle of what all seeds of both methods span, or where they have
            no accuracy in common for the largest that all reach.

    Returns:
        ``None`` where an area is 0 or infinite, which has no ratio.

    Raises:
        InvalidInputError: no seeds, other seeds, networks measured on other numbers of images, or an accuracy that a
            seed of a method does not reach.
    """
    if not first or len(first) != len(second):
        raise InvalidInputError(f"second: expected as many seeds as in first, got {len(second)} and {len(first)}")
    points = [point for curve in (*first, *second) for point in curve]
    if len({(len(point.correct), len(point.distances)) for point in points}) != 1:
        raise InvalidInputError("second: expected networks measured on the same images, got other numbers")
    low, high = common_range([*first, *second])
    if accuracy is None:
        accuracy = (min(low, high) + high) / 2
    if accuracy > high:
        raise InvalidInputError(f"accuracy: expected one that all curves reach, at most {high:.4f}, got {accuracy}")
    whole, redrawn = Sample.whole(points[0]), Sample.redrawn(points[0])
    logs = torch.stack([_readings(curves, whole, accuracy)[:, 0] for curves in (first, second)])
    if not bool(torch.isfinite(logs).all()):
        return None
    by_seed = logs[0] - logs[1]
    resampled = (_readings(first, redrawn, accuracy) - _readings(second, redrawn, accuracy)).mean(0)
    half = math.hypot(_normal_half(resampled), _student_half(by_seed))
    middle = float(by_seed.mean())
    areas = logs.mean(1).exp().tolist()
    return Comparison(
        accuracy=accuracy,
        areas=(areas[0], areas[1]),
        ratio=math.exp(middle),
        interval=(math.exp(middle - half), math.exp(middle + half)),
        by_seed=tuple(by_seed.exp().tolist()),
    )


def common_range(curves: Curves) -> tuple[float, float]:
    """The accuracies that every one of the curves spans, (low, high); empty where low is above high."""
    spans = [[float(point.correct.mean()) for point in curve] for curve in curves]
    return max(min(span) for span in spans), min(max(span) for span in spans)


def _readings(curves: Curves, sample: Sample, accuracy: float) -> Tensor:
    """Logarithms of the areas at an accuracy, (seeds, B)."""
    return torch.stack([_reading(curve, sample, accuracy) for curve in curves])


def _reading(curve: Sequence[Point], sample: Sample, accuracy: float) -> Tensor:
    accuracies, order = torch.stack([sample.accuracy(point) for point in curve], 1).sort(1)
    logs = torch.stack([sample.area(point) for point in curve], 1).log().gather(1, order)
    best, places = logs.flip(1).cummax(1)  # among the networks that are at least as accurate
    best, accuracies = (
        best.flip(1),
        accuracies.flip(1).gather(1, places).flip(1),
    )  # who is passed over stands on another
    if len(curve) == 1:
        return best[:, 0]
    above = (accuracies < accuracy).sum(1, keepdim=True).clamp(1, len(curve) - 1)
    (x0, x1), (y0, y1) = ([values.gather(1, above - 1), values.gather(1, above)] for values in (accuracies, best))
    width = torch.where(x1 > x0, x1 - x0, torch.ones_like(x0))
    share = ((accuracy - x0) / width).clamp(0, 1)
    return torch.where(share == 0, y0, torch.where(share == 1, y1, y0 + share * (y1 - y0))).squeeze(1)


def _normal_half(resampled: Tensor) -> float:
    """Half of an interval for what the images do; infinite where a resample has no ratio."""
    return float(stats.norm.ppf(_TAIL)) * float(resampled.std()) if bool(resampled.isfinite().all()) else math.inf


def _student_half(by_seed: Tensor) -> float:
    """Half of an interval for what the seeds do."""
    if len(by_seed) == 1:
        return 0.0
    return float(stats.t.ppf(_TAIL, len(by_seed) - 1)) * float(by_seed.std()) / math.sqrt(len(by_seed))
