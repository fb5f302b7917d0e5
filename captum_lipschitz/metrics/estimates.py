"""Means over images with an interval, and what two of them on the same images can tell apart."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.area import bootstrap_generator, finite_or_none, percentile_interval, resample_counts

FEWEST = 8  # images below which a bootstrap of them says nothing
LEVEL = 0.95

Verdict = Literal["above", "below", "undecided", "too few"]
Side = Literal["above", "below", "same", "undecided", "too few"]


@dataclass(frozen=True)
class Estimate:
    """A mean over images, with an interval from resampling them, of 95% where no other level was asked for.

    Attributes:
        mean: over the images that have a value; NaN where none has.
        interval: (low, high); NaNs where fewer than 8 images have a value.
        images: that have a value.
        left_out: images without one (NaN).
    """

    mean: float
    interval: tuple[float, float]
    images: int
    left_out: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.mean:.3g} [{low:.3g}, {high:.3g}], {self.images} images"

    def compared_with(self, value: float) -> Verdict:
        """On which side of ``value`` the whole interval lies; ``"undecided"`` where it holds it.

        Raises:
            InvalidInputError: ``value`` is NaN.
        """
        if math.isnan(value):
            raise InvalidInputError("value: expected a number to compare with, got NaN")
        low, high = self.interval
        if math.isnan(low):
            return "too few"
        if low > value:
            return "above"
        return "below" if high < value else "undecided"

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON's types; an undefined or infinite one is ``None``."""
        figures: dict[str, Any] = finite_or_none(asdict(self))
        return figures


def estimate(values: Tensor, *, generator: torch.Generator | None = None, level: float = LEVEL) -> Estimate:
    """The mean of one value per image, with its 95% interval: percentiles of 2,000 resamples of the images.

    Args:
        values: (N,), floating or bool (a share); NaN for an image that has no value.
        generator: source of the resamples; ``None`` is a fixed seed, so that results repeat.
        level: that the interval should hold the mean with, above 0 and below 1; 1 - 0.05 / k for each of k comparisons
            keeps the chance of one false verdict among them at 5% (Bonferroni).

    Raises:
        InvalidInputError, InvalidTypeError: another shape, no numbers, or no such level.

    Example:
        >>> estimate(torch.tensor([True, False] * 8)).mean
        0.5

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13 (percentile intervals).
    """
    if not isinstance(values, Tensor):
        raise InvalidTypeError(f"values: expected a tensor, got {type(values).__name__}")
    if values.dim() != 1 or values.is_complex():
        raise InvalidInputError(f"values: expected one real number per image, shape (N,), got {tuple(values.shape)}")
    if not 0 < level < 1:
        raise InvalidInputError(f"level: expected a number above 0 and below 1, got {level!r}")
    numbers = values.detach().cpu().double()
    known = numbers[~numbers.isnan()]
    source = bootstrap_generator(generator)
    interval = (math.nan, math.nan)
    if len(known) >= FEWEST:
        means = [counts @ known / len(known) for counts in resample_counts(len(known), generator=source)]
        interval = percentile_interval(torch.cat(means), level)
    mean = float(known.mean()) if len(known) else math.nan
    return Estimate(mean, interval, len(known), len(numbers) - len(known))


def paired_difference(
    a: Tensor, b: Tensor, *, generator: torch.Generator | None = None, level: float = LEVEL
) -> Estimate:
    """The mean of ``a - b`` over the images that have a value in both, with its 95% interval.

    What varies with the image and not with the method cancels out, so that far fewer images are needed than for two
    separate intervals. ``.compared_with(0.0)`` says whether the sample can tell.

    Args:
        a: (N,), one value per image.
        b: likewise, of the same images in the same order.
        generator: source of the resamples; ``None`` is a fixed seed.
        level: of the interval, as in ``estimate``.

    Raises:
        InvalidInputError, InvalidTypeError: other shapes, no numbers, or no such level.

    Example:
        >>> first = torch.linspace(0, 1, 16)
        >>> paired_difference(first + 0.25, first).compared_with(0.0)
        'above'
    """
    for name, values in (("a", a), ("b", b)):
        if not isinstance(values, Tensor):
            raise InvalidTypeError(f"{name}: expected a tensor, got {type(values).__name__}")
    if a.shape != b.shape:
        raise InvalidInputError(f"b: expected the images of a, shape {tuple(a.shape)}, got {tuple(b.shape)}")
    return estimate(a.detach().cpu().double() - b.detach().cpu().double(), generator=generator, level=level)


def side_of(found: Estimate, smallest: float) -> Side:
    """On which side of 0 a difference lies, those of up to ``smallest`` either way counting as none.

    Args:
        found: the difference.
        smallest: at least 0, in the difference's unit.

    Returns:
        ``"above"`` or ``"below"`` where the whole interval is beyond ``smallest``; ``"same"`` where all of it is
        within; ``"undecided"`` where it reaches over; ``"too few"`` without an interval.

    Example:
        >>> [side_of(Estimate(0.0, ends, 16, 0), 0.01) for ends in ((0.02, 0.03), (-0.01, 0.005), (0.005, 0.03))]
        ['above', 'same', 'undecided']
    """
    low, high = found.interval
    if math.isnan(low):
        return "too few"
    if low > smallest:
        return "above"
    if high < -smallest:
        return "below"
    return "same" if low >= -smallest and high <= smallest else "undecided"
