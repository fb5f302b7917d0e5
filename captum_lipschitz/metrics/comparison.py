"""Two Accuracy-Robustness Areas on the same images, compared image by image."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.area import bootstrap_areas, bootstrap_generator, finite_or_none, percentile_interval
from captum_lipschitz.metrics.result import AraResult


@dataclass(frozen=True)
class AraComparison:
    """Difference and ratio of two areas, each with a paired 95% interval from resampling the images.

    Attributes:
        difference: the first area minus the second, in the norm's units.
        difference_interval: (low, high).
        ratio: the first area over the second.
        ratio_interval: (low, high).
    """

    difference: float
    difference_interval: tuple[float, float]
    ratio: float
    ratio_interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.ratio_interval
        return f"ratio {self.ratio:.3g} [{low:.3g}, {high:.3g}], difference {self.difference:.4g}"

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON's types; an undefined or infinite one is ``None``."""
        figures: dict[str, Any] = finite_or_none(asdict(self))
        return figures


def compare(a: AraResult, b: AraResult, *, generator: torch.Generator | None = None) -> AraComparison:
    """Compare two models measured on the same images in the same order.

    Every resample draws the same images for both, so what varies with the image and not with the model cancels out.

    Args:
        a: the numerator.
        b: the denominator.
        generator: source of the bootstrap's draws; ``None`` is a fixed seed, so that results repeat.

    Returns:
        An ``AraComparison``: ratio a / b and difference a - b, each with its 95% interval.

    Raises:
        InvalidInputError: different images (number or labels), norms, criteria or chance; or an area that is zero where
            it is divided by, or infinite, about which ratios say nothing.

    Example:
        >>> from captum_lipschitz import accuracy_robustness_area
        >>> images, labels = torch.rand(16, 4), torch.arange(16) % 3
        >>> fragile, stable = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
        >>> results = [accuracy_robustness_area(m, (images, labels), chance=0.0) for m in (stable, fragile)]
        >>> comparison = compare(*results)

    References:
        Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 8 (paired resampling).
    """
    for name, result in (("a", a), ("b", b)):
        if not isinstance(result, AraResult):
            raise InvalidTypeError(f"{name}: expected an AraResult, got {type(result).__name__}")
        if not result.area < torch.inf:
            raise InvalidInputError(f"{name}: expected a finite area; {result.not_found} images were not found")
    if len(a) != len(b) or not torch.equal(a.labels, b.labels):
        raise InvalidInputError(f"b: expected the same images as in a, got {len(b)} and {len(a)} with other labels")
    for setting in ("norm", "criterion", "chance_accuracy"):
        if getattr(a, setting) != getattr(b, setting):
            raise InvalidInputError(f"b: expected {setting} {getattr(a, setting)!r}, got {getattr(b, setting)!r}")
    if b.area == 0:
        raise InvalidInputError("b: expected an area above 0 to divide by, got 0")
    second = bootstrap_generator(generator)
    first = torch.Generator()
    first.set_state(second.get_state())  # the same draws for both, and the caller's generator moves on once
    areas_a = bootstrap_areas(a.distances, a.chance_accuracy, generator=first)
    areas_b = bootstrap_areas(b.distances, b.chance_accuracy, generator=second)
    return AraComparison(
        difference=a.area - b.area,
        difference_interval=percentile_interval(areas_a - areas_b),
        ratio=a.area / b.area,
        ratio_interval=percentile_interval(areas_a / areas_b),
    )
