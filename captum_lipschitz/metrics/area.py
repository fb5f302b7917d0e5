"""The area under an accuracy-robustness curve, exactly, and its bootstrap: pure functions of distances."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidTypeError

_SEED = 0
_RESAMPLES = 2000
_CONFIDENCE = 0.95
_CELLS = 500_000  # entries of the count matrix held at once


def curve(distances: Tensor, rho: Tensor) -> Tensor:
    """Share of images whose distance is above each ``rho``: ``acc(rho)``, never rising.

    Args:
        distances: (N,), at least 0, ``inf`` where none was found.
        rho: any shape.

    Returns:
        Fractions, float64, shaped as ``rho``.
    """
    ordered = distances.double().sort().values
    at_most = torch.searchsorted(ordered, rho.double().contiguous(), right=True)
    return (len(ordered) - at_most).double() / len(ordered)


def area(distances: Tensor, chance_accuracy: float, *, truncated: bool = False) -> float:
    """Integral over rho of ``max(0, acc(rho) - chance_accuracy)``, exact: the curve is a staircase.

    Args:
        distances: (N,), at least 0, ``inf`` where none was found.
        chance_accuracy: a0, accuracy of guessing, a fraction.
        truncated: integrate up to the largest finite distance only.

    Returns:
        The area in the distances' units; ``inf`` where the share of images without a finite distance exceeds
        ``chance_accuracy`` (unless truncated).

    Example:
        >>> area(torch.tensor([0.0, 1.0, 2.0, 3.0]), 0.25)  # 1 * (3/4 - 1/4) + 1 * (2/4 - 1/4)
        0.75

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area"); its histogram made exact.
    """
    counts = torch.ones(1, len(distances), dtype=torch.float64)
    ordered = distances.cpu().double().sort().values
    return float(_areas(ordered, counts, chance_accuracy, truncated=truncated))


def bootstrap_areas(
    distances: Tensor, chance_accuracy: float, *, generator: torch.Generator, resamples: int = _RESAMPLES
) -> Tensor:
    """Areas of ``resamples`` draws of N images with replacement, (resamples,); same generator state, same images."""
    areas = [
        weighted_areas(distances, counts, chance_accuracy)
        for counts in resample_counts(len(distances), generator=generator, resamples=resamples)
    ]
    return torch.cat(areas)


def resample_counts(num_images: int, *, generator: torch.Generator, resamples: int = _RESAMPLES) -> Iterator[Tensor]:
    """How often each image is in each resample, (B, N) float64 at a time, as many rows as memory should hold."""
    step = max(1, _CELLS // num_images)
    for start in range(0, resamples, step):
        rows = min(step, resamples - start)
        chosen = torch.randint(num_images, (rows, num_images), generator=generator)
        counts = torch.zeros(rows, num_images, dtype=torch.float64)
        yield counts.scatter_add_(1, chosen, torch.ones_like(chosen, dtype=torch.float64))


def weighted_areas(distances: Tensor, counts: Tensor, chance_accuracy: float) -> Tensor:
    """The area for each row of ``counts``, (B, N), in which image i occurs ``counts[b, i]`` times; (B,), float64.

    NaN for a row without images.
    """
    ordered, order = distances.cpu().double().sort()
    return _areas(ordered, counts[:, order], chance_accuracy, truncated=False)


def percentile_interval(values: Tensor, confidence: float = _CONFIDENCE) -> tuple[float, float]:
    """The central interval of a bootstrap's values, (low, high).

    Undefined values (NaN) could be anything: they count as smallest for the lower end and as largest for the upper one.
    """
    tail = (1 - confidence) / 2
    low = math.floor(tail * (len(values) - 1))
    high = math.ceil((1 - tail) * (len(values) - 1))
    smallest, largest = (values.nan_to_num(nan=end, posinf=math.inf, neginf=-math.inf) for end in (-math.inf, math.inf))
    return float(smallest.sort().values[low]), float(largest.sort().values[high])


def bootstrap_generator(generator: object) -> torch.Generator:
    """The generator given, or for ``None`` one of a fixed seed, so that results repeat."""
    if generator is None:
        return torch.Generator().manual_seed(_SEED)
    if not isinstance(generator, torch.Generator) or generator.device.type != "cpu":
        raise InvalidTypeError(f"generator: expected a torch.Generator on the CPU or None, got {generator!r}")
    return generator


def finite_or_none(value: Any) -> Any:
    """Nested lists, tuples and dicts in JSON's types: NaN and infinity, which it has not, become ``None``."""
    if isinstance(value, dict):
        return {name: finite_or_none(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite_or_none(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _areas(ordered: Tensor, counts: Tensor, chance_accuracy: float, *, truncated: bool) -> Tensor:
    """One area per row of ``counts``, (B, N): how often each of the sorted distances, (N,), occurs in a sample."""
    total = counts.sum(1, keepdim=True)
    survivors = counts.flip(1).cumsum(1).flip(1)
    excess = survivors - chance_accuracy * total
    excess = torch.where(excess < 1e-9 * total, torch.zeros_like(excess), excess) / total  # below chance counts as 0
    finite = torch.isfinite(ordered)
    steps = torch.where(finite, ordered, torch.zeros_like(ordered))
    widths = torch.where(finite, torch.diff(steps, prepend=torch.zeros(1, dtype=steps.dtype)), torch.zeros_like(steps))
    areas = (excess * widths).sum(1)
    if truncated or bool(finite.all()):
        return areas
    endless = excess[:, int(finite.sum())] > 0
    return torch.where(endless, torch.full_like(areas, math.inf), areas)
