"""How far an explanation goes: one size over all inputs together, or one for each."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from captum_lipschitz.attr._packing import Packed
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Norm


class Budget:
    """The sizes that a perturbation of (N, features) may have, and what they are measured in.

    Args:
        norm: makes the norm for a scale.
        batch: the examples; their scale, and where each input's features are.
        rho: one size over all inputs; or a tuple, a size for each input, of which some may be 0.
    """

    def __init__(self, norm: Callable[[Tensor | None], Norm], batch: Packed, rho: float | tuple[float, ...]) -> None:
        sizes = check_rho(rho)
        several = isinstance(rho, (tuple, list))
        if several and len(sizes) != len(batch.shapes):
            raise InvalidInputError(f"rho: expected a size for each of {len(batch.shapes)} inputs, got {rho}")
        self._widths = batch.widths if several else [sum(batch.widths)]
        scales = [None] * len(sizes) if batch.scale is None else batch.scale.split(self._widths, dim=1)
        self._norms = [norm(scale) for scale in scales]
        self._sizes = sizes

    def steepest(self, gradient: Tensor) -> Tensor:
        """Of every input the steepest perturbation of size 1, or of its own size where each has one."""
        parts = [norm.steepest(part) for norm, part in zip(self._norms, self._split(gradient), strict=True)]
        return self._joined(parts)

    def normalised(self, delta: Tensor) -> Tensor:
        """The perturbation at size 1 along its own direction, or every input's at its own size."""
        parts = [norm.normalised(part) for norm, part in zip(self._norms, self._split(delta), strict=True)]
        return self._joined(parts)

    @property
    def length(self) -> float:
        """A budget in units of the directions above."""
        return self._sizes[0] if len(self._sizes) == 1 else 1.0

    def used_up(self, delta: Tensor) -> Tensor:
        """Where the perturbation has its size: (N,), or (N, features) where each input has one."""
        full = [part >= size for part, size in zip(self._measured(delta), self._sizes, strict=True)]
        if len(full) == 1:
            return full[0]
        return torch.cat([row[:, None].expand(-1, width) for row, width in zip(full, self._widths, strict=True)], dim=1)

    def excess(self, delta: Tensor) -> Tensor:
        """Achieved size minus the size asked for, (N,); of several, the one that differs most."""
        gaps = torch.stack([part - size for part, size in zip(self._measured(delta), self._sizes, strict=True)], 1)
        return gaps.gather(1, gaps.abs().argmax(1, keepdim=True)).squeeze(1)

    def _measured(self, delta: Tensor) -> list[Tensor]:
        return [norm.size(part) for norm, part in zip(self._norms, self._split(delta), strict=True)]

    def _split(self, values: Tensor) -> tuple[Tensor, ...]:
        return tuple(values.split(self._widths, dim=1))

    def _joined(self, parts: list[Tensor]) -> Tensor:
        if len(parts) == 1:
            return parts[0]
        return torch.cat([size * part for size, part in zip(self._sizes, parts, strict=True)], dim=1)


def check_rho(rho: float | tuple[float, ...]) -> tuple[float, ...]:
    """The sizes as a tuple, or an exception."""
    sizes = tuple(rho) if isinstance(rho, (tuple, list)) else (rho,)
    if not all(0 <= size < math.inf for size in sizes) or not any(sizes):
        hint = " for some input, and 0 for those to leave alone" if isinstance(rho, (tuple, list)) else ""
        raise InvalidInputError(f"rho: expected a positive size{hint}, got {rho}")
    return sizes
