"""Figures within sentences."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Literal

from captum_lipschitz.metrics.estimates import Estimate, Verdict


def number(found: Estimate) -> str:
    """A mean with its interval.

    Example:
        >>> number(Estimate(0.5, (0.25, 0.75), 16, 0)), number(Estimate(0.5, (math.nan, math.nan), 3, 0))
        ('0.5 [0.25, 0.75]', '0.5 (3 images, too few for an interval)')
    """
    return _written(found, lambda value: f"{value:.3g}")


def share(found: Estimate) -> str:
    """A mean with its interval, in per cent.

    Example:
        >>> share(Estimate(0.5, (0.25, 0.75), 16, 0))
        '50% [25%, 75%]'
    """
    return _written(found, lambda value: f"{value:.0%}")


def counted(count: int, what: str) -> str:
    """A number of things.

    Example:
        >>> counted(1, "image"), counted(2, "image")
        ('1 image', '2 images')
    """
    return f"{count} {what}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Names in a row.

    Example:
        >>> listed(["a", "b", "c"]), listed(["a"])
        ('a, b and c', 'a')
    """
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def why_open(verdict: Verdict | Literal["same"], found: Estimate, limit: str) -> str:
    """Why a sample cannot tell on which side of a limit a mean lies."""
    if verdict == "too few":
        return f"{counted(found.images, 'image')} with a figure, fewer than 8, are too few to tell"
    return f"these {found.images} images cannot tell, as the interval holds {limit}"


def _written(found: Estimate, figure: Callable[[float], str]) -> str:
    if not found.images:
        return "unknown"
    low, high = found.interval
    if math.isnan(low):
        return f"{figure(found.mean)} ({counted(found.images, 'image')}, too few for an interval)"
    return f"{figure(found.mean)} [{figure(low)}, {figure(high)}]"
