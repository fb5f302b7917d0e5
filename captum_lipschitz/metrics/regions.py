"""The region that a map calls important, and how much of a perturbation lies outside it. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.maps import check_maps, check_share, count_of, ranking
from captum_lipschitz.metrics.similarity import places

_ROUNDING = 1e-9  # of the energy, within which two placements hold the same


class EnergyOutside(NamedTuple):
    """Shares of a perturbation's energy, and what maps that know nothing would leave; each (N,) float64.

    NaN where the region is empty or the perturbation zero.

    Attributes:
        outside: of the energy, outside the region.
        at_random: what as many positions, drawn at random, leave outside on average: the share of positions outside.
            Placing the region's own shape at random, cyclically, leaves exactly as much on average.
        at_centre: what as many positions, those nearest to the picture's centre, leave. NaN for what is no picture.
        placements_as_good: share of all cyclic placements of the region's own shape, its own place among them, that
            leave no more outside than its own place does: a half or so for a map that knows nothing, near 0 for one
            that knows where the energy is. NaN for (N, F), whose features have no order.
    """

    outside: Tensor
    at_random: Tensor
    at_centre: Tensor
    placements_as_good: Tensor


def important_region(maps: Tensor, *, area: float = 0.2) -> Tensor:
    """The ``area`` share of positions whose magnitude is largest, with all that tie for the last place.

    Positions of magnitude 0 are never in it, so it can be smaller; where many tie, as within LIME's segments, it can
    be larger. It is empty where it would be the whole image (the map is the same everywhere), or the map is not finite.

    Args:
        maps: magnitudes, (N, ...), one for each position (``position_maps``).
        area: share of the positions, between 0 and 1; at least one position.

    Returns:
        Bool, shaped as ``maps``.

    Raises:
        InvalidInputError, InvalidTypeError: a share outside 0 to 1, or no maps.

    Example:
        >>> important_region(torch.tensor([[0.0, 3.0, 1.0, 2.0, 0.5]]), area=0.4).tolist()
        [[False, True, False, True, False]]
    """
    check_share(area, "area")
    check_maps(maps, "maps")
    flat = maps.detach().flatten(1).abs()
    count = count_of(area, flat.shape[1])
    last = flat.topk(count, dim=1).values[:, -1:]
    region = (flat >= last) & (flat > 0)
    usable = ranking(flat) & ~region.all(1)
    return (region & usable[:, None]).reshape(maps.shape)


def energy_outside(perturbations: Tensor, region: Tensor) -> EnergyOutside:
    """The share of perturbations' energy, their squares summed over channels, outside a region of positions.

    Args:
        perturbations: (N, ...), finite.
        region: bool, (N, H, W) for (N, C, H, W): one for each position, as ``important_region`` makes it.

    Returns:
        ``EnergyOutside``: shares in [0, 1], each (N,); NaN where a region is empty or there is no energy.

    Raises:
        InvalidInputError, InvalidTypeError: a region of another shape or type, or perturbations that are not finite.

    Example:
        >>> found = energy_outside(torch.tensor([[3.0, 4.0]]), torch.tensor([[False, True]]))
        >>> round(float(found.outside), 2), float(found.at_random)  # 9 / 25, and half of the positions
        (0.36, 0.5)
    """
    check_inputs(perturbations, "perturbations")
    energy = perturbations.detach().double().square()
    energy = energy.sum(1) if energy.dim() > 2 else energy
    check_region(region, perturbations)
    inside = region.flatten(1)
    held, left = ((energy.flatten(1) * where).sum(1) for where in (inside, ~inside))
    total = held + left
    known = inside.any(1) & (total > 0)
    shares = energy.flatten(1) / total[:, None]
    at_random = (~inside).double().mean(1)
    return EnergyOutside(
        outside=(left / total).where(known, torch.nan),
        at_random=at_random.where(known, torch.nan),
        at_centre=_at_centre(shares, region).where(known, torch.nan),
        placements_as_good=_placements_as_good(shares.reshape(region.shape), region).where(known, torch.nan),
    )


def check_region(region: object, images: Tensor) -> None:
    """Raise unless a region is bool and has one value for each position of the images, (N, ...)."""
    if not isinstance(region, Tensor) or region.dtype != torch.bool:
        kind = region.dtype if isinstance(region, Tensor) else type(region).__name__
        raise InvalidTypeError(f"region: expected a bool tensor, got {kind}")
    wanted = images.shape if images.dim() == 2 else (len(images), *images.shape[2:])
    if region.shape != torch.Size(wanted):
        raise InvalidInputError(
            f"region: expected one value for each position, {tuple(wanted)}, got {tuple(region.shape)}"
        )


def _at_centre(shares: Tensor, region: Tensor) -> Tensor:
    """Energy outside as many positions around the centre, (N,); those that tie at the edge count in part."""
    if region.dim() != 3:
        return torch.full_like(shares[:, 0], torch.nan)
    rows, columns = (torch.arange(n, device=region.device).double() - (n - 1) / 2 for n in region.shape[1:])
    nearness = -(rows[:, None].square() + columns.square()).flatten().expand_as(shares)
    return 1 - (shares * places(nearness, region.flatten(1).sum(1).clamp(min=1))).sum(1)


def _placements_as_good(energy: Tensor, region: Tensor) -> Tensor:
    """Share of all cyclic shifts of the region that hold at least the energy that it holds itself, (N,).

    What each shift holds is the cross-correlation of energy and region: a product of Fourier transforms.
    """
    if region.dim() < 3:
        return torch.full_like(energy.flatten(1)[:, 0], torch.nan)
    axes = tuple(range(1, region.dim()))
    spectrum = torch.fft.rfftn(energy, dim=axes) * torch.fft.rfftn(region.double(), dim=axes).conj()
    held = torch.fft.irfftn(spectrum, s=region.shape[1:], dim=axes).flatten(1)
    as_good: Tensor = held >= held[:, :1] - _ROUNDING
    return as_good.double().mean(1)
