"""A cheap radius held against attacked distances: how far off it is, and whether it ranks images alike."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.area import finite_or_none

_QUANTILES = (0.05, 0.5, 0.95)


@dataclass(frozen=True)
class RadiusCalibration:
    """What a radius is worth beside the distance that an attack found.

    Attributes:
        ratio: geometric mean of radius over distance; above 1 the radius promises more than the attack leaves.
        quantiles: of that ratio at 5%, 50% and 95% of the images.
        rank_correlation: Spearman's, in [-1, 1]; NaN where all radii or all distances are the same.
        count: images compared: both are finite and above 0.
        left_out: the others.
    """

    ratio: float
    quantiles: tuple[float, float, float]
    rank_correlation: float
    count: int
    left_out: int

    def __str__(self) -> str:
        low, _, high = self.quantiles
        return (
            f"radius / distance {self.ratio:.3g} (5% to 95% of the images: {low:.3g} to {high:.3g}), rank correlation "
            f"{self.rank_correlation:.2f}, {self.count} images"
        )

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON's types; an undefined one is ``None``."""
        figures: dict[str, Any] = finite_or_none(asdict(self))
        return figures


def radius_calibration(radii: Tensor, distances: Tensor) -> RadiusCalibration:
    """Compare ``margin_radius`` with attacked distances of the same images, in the same norm.

    Args:
        radii: (N,), at least 0.
        distances: (N,), at least 0, ``inf`` where nothing was found (``AraResult.distances``).

    Returns:
        A ``RadiusCalibration``.

    Raises:
        InvalidTypeError, InvalidInputError: for tensors that do not match, or without an image to compare.

    Example:
        >>> radius_calibration(torch.tensor([1.0, 2.0, 4.0, 0.0]), torch.tensor([2.0, 4.0, 8.0, 0.0])).ratio
        0.5
    """
    for name, values in (("radii", radii), ("distances", distances)):
        if not isinstance(values, Tensor):
            raise InvalidTypeError(f"{name}: expected a tensor, got {type(values).__name__}")
        if values.dim() != 1 or bool((values.isnan() | (values < 0)).any()):
            raise InvalidInputError(f"{name}: expected sizes of shape (N,), at least 0, got {tuple(values.shape)}")
    if len(radii) != len(distances):
        raise InvalidInputError(f"distances: expected one for each of {len(radii)} radii, got {len(distances)}")
    radii, distances = radii.detach().double().cpu(), distances.detach().double().cpu()
    compared = torch.isfinite(radii) & torch.isfinite(distances) & (radii > 0) & (distances > 0)
    if not bool(compared.any()):
        raise InvalidInputError("radii: expected an image whose radius and distance are finite and above 0, got none")
    ratios = (radii / distances)[compared]
    low, middle, high = torch.quantile(ratios, torch.tensor(_QUANTILES, dtype=ratios.dtype)).tolist()
    return RadiusCalibration(
        ratio=float(ratios.log().mean().exp()),
        quantiles=(low, middle, high),
        rank_correlation=_correlation(_ranks(radii[compared]), _ranks(distances[compared])),
        count=int(compared.sum()),
        left_out=int((~compared).sum()),
    )


def _ranks(values: Tensor) -> Tensor:
    """Ranks from 1, equal values sharing the mean of theirs."""
    _, place, counts = torch.unique(values, return_inverse=True, return_counts=True)
    ends = counts.cumsum(0).double()
    ranks: Tensor = (ends - (counts.double() - 1) / 2)[place]
    return ranks


def _correlation(a: Tensor, b: Tensor) -> float:
    a, b = a - a.mean(), b - b.mean()
    return float((a * b).sum() / (a.square().sum() * b.square().sum()).sqrt())
