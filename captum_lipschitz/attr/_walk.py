"""The paper's loop as an explanation: a walk of every example toward more evidence, of a given size."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._memory import in_chunks, takes_batch_statistics
from captum_lipschitz._model import gradient
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz.attacks.paper import check_steps, shrinking_steps
from captum_lipschitz.attr._budget import Budget, check_rho
from captum_lipschitz.attr._packing import Packed
from captum_lipschitz.attr._targets import Evidence
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError
from captum_lipschitz.geometry import Norm, as_norm

MakeNorm: TypeAlias = Callable[[Tensor | None], Norm]
"""A norm for a scale, (N, features)."""

Forward: TypeAlias = Callable[[Packed, Tensor], object]
"""The model's output for a batch whose features, (N, features), have become others."""


@dataclass(frozen=True)
class Walk:
    """How far to walk, in how many steps, and whether toward the evidence (1) or away from it (-1)."""

    rho: float | tuple[float, ...]
    n_steps: int
    overshoot: float
    momentum: float
    sign: float = 1.0

    def __post_init__(self) -> None:
        check_rho(self.rho)
        check_steps(n_steps=self.n_steps, overshoot=self.overshoot, momentum=self.momentum)


def walk_all(
    walk: Walk,
    forward: Forward,
    packed: Packed,
    evidence: Callable[[Packed], Evidence],
    norm: MakeNorm,
    *,
    model: Callable[..., Any],
    at_once: int | None,
    progress: tqdm[Any],
) -> Tensor:
    """Perturbations of all examples, (N, features), at most ``at_once`` together; the model is left as it was."""

    def work(start: int, stop: int) -> tuple[Tensor, Tensor]:
        batch = packed.rows(slice(start, stop))
        progress.total = progress.n + walk.n_steps * math.ceil((len(packed) - start) / len(batch))
        with settled(), no_trace(model, batch.features, evaluation=False):
            return _walk(walk, forward, batch, evidence(batch), Budget(norm, batch, walk.rho), progress)

    walked = in_chunks(
        work,
        len(packed),
        what="attribute",
        device=packed.features.device,
        at_once=at_once,
        halve=not takes_batch_statistics(model),
    )
    found, broken = (torch.cat(parts) for parts in zip(*walked, strict=True))
    _warn_of(broken, "the gradient became NaN or infinite on the way; their perturbations end there")
    _warn_of(
        (found == 0).all(1) & ~broken,
        "nothing moved: the gradient is zero, or points out of the bounds; their attributions explain nothing",
    )
    return found


def _warn_of(rows: Tensor, what: str) -> None:
    count = int(rows.sum())
    if count:
        warnings.warn(f"attribute: for {count} of {len(rows)} examples {what}", CaptumLipschitzWarning, stacklevel=6)


def _walk(
    walk: Walk, forward: Forward, batch: Packed, evidence: Evidence, budget: Budget, progress: tqdm[Any]
) -> tuple[Tensor, Tensor]:
    """One batch's perturbations, (N, features), and where the gradient was not finite, (N,).

    Nothing here waits for the device but the evidence of the first step, and no example is looked at by itself.
    """
    start, bounds = batch.features, batch.bounds
    broken = torch.zeros(len(batch), 1, dtype=torch.bool, device=start.device)

    def look(delta: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal broken
        leaf = (start + delta).requires_grad_()
        ascent = walk.sign * gradient(evidence(forward(batch, leaf)), leaf)
        if batch.mask is not None:
            ascent = torch.where(batch.mask, ascent, 0.0)  # a slope that is not wanted may be infinite
        broken = broken | ~torch.isfinite(ascent.sum(1, keepdim=True))
        progress.update()
        return ascent.masked_fill(broken, 0.0), budget.used_up(delta)

    delta = shrinking_steps(
        look,
        torch.zeros_like(start),
        norm=budget,
        n_steps=walk.n_steps,
        path_length=walk.overshoot * budget.length,
        momentum=walk.momentum,
        clamp=None if bounds is None else lambda delta: bounds.clamp(start + delta) - start,
    )
    return delta.detach(), broken.squeeze(1)


def norm_and_scale(norm: Norm | str, scale: Any) -> tuple[MakeNorm, Any]:
    """How to make the norm from a scale; and the scale, beside it or inside it: it may be one for each input."""
    made = as_norm(norm, scale if isinstance(norm, Norm) else None)  # refuses a scale beside a norm object

    def make(own: Tensor | None) -> Norm:
        other = copy.copy(made)
        Norm.__init__(other, own)
        return other

    return make, made.scale if isinstance(norm, Norm) else scale


def check_batch_size(internal_batch_size: int | None) -> None:
    """Refuse a batch of nothing."""
    if internal_batch_size is not None and not (isinstance(internal_batch_size, int) and internal_batch_size >= 1):
        raise InvalidInputError(f"internal_batch_size: expected at least 1, or None, got {internal_batch_size}")
