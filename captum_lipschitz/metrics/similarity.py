"""How alike two maps of the same image are: by rank, by their top, by structure, by angle. Pure functions."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.maps import check_maps, check_share, count_of, ranking

_WINDOW = 7  # pixels: fits pictures as small as scikit-learn's digits
_C1, _C2 = 0.01**2, 0.03**2  # of a range of 1


class Similarity(NamedTuple):
    """How alike two maps are, each (N,) float64; NaN where a map is the same everywhere, or not finite.

    Attributes:
        rank_correlation: Spearman's, in [-1, 1].
        top_overlap: share of one's top that is in the other's, in [0, 1].
        structural: SSIM, in [-1, 1]; NaN for what is no picture of at least 7 x 7.
        cosine: of the angle between them, in [-1, 1].
    """

    rank_correlation: Tensor
    top_overlap: Tensor
    structural: Tensor
    cosine: Tensor


def map_similarity(a: Tensor, b: Tensor, *, top: float = 0.1) -> Similarity:
    """All four measures of two batches of maps, (N, ...), as ``position_maps`` makes them; symmetric in both.

    Args:
        a: (N, ...); structure is measured for (N, H, W).
        b: likewise.
        top: of ``top_overlap``, a share.

    Returns:
        A ``Similarity`` of four measures, each (N,).

    Raises:
        InvalidInputError, InvalidTypeError: maps of different shapes, or a share outside 0 to 1.

    Example:
        >>> maps = torch.rand(1, 8, 8)
        >>> [float(value) for value in map_similarity(maps, maps)]
        [1.0, 1.0, 1.0, 1.0]
    """
    return Similarity(
        rank_correlation=rank_correlation(a, b),
        top_overlap=top_overlap(a, b, top=top),
        structural=structural_similarity(a, b),
        cosine=cosine_similarity(a, b),
    )


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's: the correlation of the positions' ranks, those of equal values being their average.

    Any increasing change of a map's values leaves it as it is.

    Args:
        a: maps, (N, ...).
        b: likewise.

    Returns:
        (N,), float64, in [-1, 1]; NaN where a map is the same everywhere, or not finite.

    References:
        Spearman 1904; for saliency maps Ghorbani, Abid and Zou 2019, arXiv 1710.10547 (of magnitudes), and Adebayo et
        al. 2018, arXiv 1810.03292 (of magnitudes and of signed values).
    """
    a, b, known = _pair(a, b)
    return _cosine(*(_ranks(x) - (x.shape[1] - 1) / 2 for x in (a, b))).where(known, torch.nan)


def top_overlap(a: Tensor, b: Tensor, *, top: float = 0.1) -> Tensor:
    """Share of the top ``top`` of the positions, at least one, that both maps have in common.

    Positions that tie for the last places share these evenly, and two maps have in common the smaller of a position's
    shares: no order of the pixels decides, and a map has everything in common with itself.

    Args:
        a: maps, (N, ...).
        b: likewise.
        top: share of the positions, between 0 and 1.

    Returns:
        (N,), float64, in [0, 1], ``top`` for unrelated maps on average; NaN where a map is the same everywhere, or
        not finite.

    References:
        Ghorbani, Abid and Zou 2019, arXiv 1710.10547 ("top-k intersection").
    """
    check_share(top, "top")
    a, b, known = _pair(a, b)
    count = torch.full((len(a),), count_of(top, a.shape[1]), device=a.device)
    first, second = places(a, count), places(b, count)
    common = torch.minimum(first, second).sum(1)
    return (common / torch.maximum(first.sum(1), second.sum(1))).where(known, torch.nan)


def structural_similarity(a: Tensor, b: Tensor) -> Tensor:
    """SSIM with a uniform window of 7 x 7 that stays within the picture, averaged over its places.

    Both maps are scaled together, by the least and greatest value in either: constants are those of a range of 1. A
    map of the same shape and another contrast is therefore less than fully alike, as it is to the eye.

    Args:
        a: maps, (N, H, W).
        b: likewise.

    Returns:
        (N,), float64, in [-1, 1]; NaN for other shapes, pictures below 7 x 7, and where a map is the same everywhere,
        or not finite.

    References:
        Wang et al. 2004, Image quality assessment: from error visibility to structural similarity (IEEE TIP 13); for
        saliency maps Adebayo et al. 2018, arXiv 1810.03292.
    """
    shape = a.shape if isinstance(a, Tensor) else ()
    a, b, known = _pair(a, b)
    if len(shape) != 3 or min(shape[1:]) < _WINDOW:
        return torch.full_like(a[:, 0], torch.nan)
    low = torch.minimum(a.amin(1), b.amin(1))[:, None]
    span = torch.maximum(a.amax(1), b.amax(1))[:, None] - low
    span = span.where(span > 0, torch.ones_like(span))
    x, y = (((maps - low) / span).reshape(shape)[:, None] for maps in (a, b))
    mean_x, mean_y = _windowed(x), _windowed(y)
    spread_x, spread_y = _windowed(x * x) - mean_x * mean_x, _windowed(y * y) - mean_y * mean_y
    common = _windowed(x * y) - mean_x * mean_y
    likeness = (2 * mean_x * mean_y + _C1) * (2 * common + _C2)
    likeness = likeness / ((mean_x * mean_x + mean_y * mean_y + _C1) * (spread_x + spread_y + _C2))
    return likeness.flatten(1).mean(1).clamp(-1, 1).where(known, torch.nan)


def cosine_similarity(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of the angle between two maps; scaling either by a positive number leaves it as it is.

    Maps of magnitudes have no negative values, so even unrelated ones have a large cosine: of independent,
    half-normal values 0.64.

    Args:
        a: maps, (N, ...).
        b: likewise.

    Returns:
        (N,), float64, in [-1, 1]; NaN where a map is the same everywhere, or not finite.
    """
    a, b, known = _pair(a, b)
    return _cosine(a, b).where(known, torch.nan)


def places(values: Tensor, count: Tensor) -> Tensor:
    """How far each position, (N, P), is among the ``count``, (N,), largest, in [0, 1]; those that tie share evenly."""
    order = values.sort(1, descending=True).values
    last = order.gather(1, count.long()[:, None] - 1)
    above, tied = (values > last).double(), (values == last).double()
    left = count[:, None] - above.sum(1, keepdim=True)
    return above + tied * left / tied.sum(1, keepdim=True)


def _pair(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both maps as (N, P) float64, zeros where there is nothing to compare, and where there is, (N,) bool."""
    check_maps(a, "a")
    check_maps(b, "b")
    if a.shape != b.shape:
        raise InvalidInputError(f"b: expected the shape of a, {tuple(a.shape)}, got {tuple(b.shape)}")
    known = ranking(a) & ranking(b)
    first, second = (x.detach().flatten(1).double().where(known[:, None], 0.0) for x in (a, b))
    return first, second, known


def _ranks(values: Tensor) -> Tensor:
    """Rank of each value in its row, (N, P), from 0; equal values have the average of theirs."""
    order = values.sort(1).values
    below = torch.searchsorted(order, values, right=False)
    at_most = torch.searchsorted(order, values, right=True)
    return (below + at_most - 1).double() / 2


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    """Of matching rows, (N, P) to (N,); exactly 1 for equal ones."""
    tiny = torch.finfo(a.dtype).tiny
    a, b = (x / x.abs().amax(1, keepdim=True).clamp(min=tiny) for x in (a, b))
    product = (a * b).sum(1) / ((a * a).sum(1) * (b * b).sum(1)).sqrt().clamp(min=tiny)
    return product.clamp(-1, 1)


def _windowed(pictures: Tensor) -> Tensor:
    return F.avg_pool2d(pictures, _WINDOW, stride=1)
