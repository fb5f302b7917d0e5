"""Insertion and deletion: the target's probability while the important positions come, or go."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.fidelity.outputs import broadcast, checked, logits_of
from captum_lipschitz.metrics.fidelity.settings import check_count
from captum_lipschitz.metrics.maps import check_maps, ranking
from captum_lipschitz.metrics.similarity import places

_BLUR = 1 / 8  # standard deviation of the baseline's blur, over each side
_IMAGES = 64  # worked on at once


@dataclass(frozen=True)
class Curves:
    """The target's probability over that of the clean image, step by step, float64 on the CPU.

    Attributes:
        shares: of the positions replaced, (steps + 1,), from 0 to 1.
        insertion: (N, steps + 1), from the baseline (0) to the clean image (1).
        deletion: (N, steps + 1), the other way round.
        insertion_area: (N,), the mean height of the curve; NaN where the map ranks nothing.
        deletion_area: (N,), likewise.
    """

    shares: Tensor
    insertion: Tensor
    deletion: Tensor
    insertion_area: Tensor
    deletion_area: Tensor


def insertion_deletion(
    model: Model, images: Tensor, targets: Tensor, maps: Tensor, *, steps: int = 16, baseline: Tensor | None = None
) -> Curves:
    """How fast the target's probability rises as the top positions are shown, and falls as they are taken away.

    Positions of equal value are blended in evenly, so that no order of the pixels decides. Both curves depend on the
    baseline: what is left of the target's probability there is the floor of both.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, (N, ...).
        targets: classes, (N,).
        maps: (N, H, W) as ``position_maps`` makes them, (N, F) for rows; ranked by value, the largest first.
        steps: into which the positions are divided, each of two forward passes.
        baseline: what stands for nothing: broadcasts to the images. ``None``: each image blurred, by a Gaussian with a
            standard deviation of an eighth of each side. Rows have to bring one: the data's mean.

    Returns:
        ``Curves``, probabilities divided by the clean image's: 1 is the clean probability, and more is possible.

    Raises:
        InvalidInputError, InvalidTypeError, ModelOutputError: for what cannot be used.

    Example:
        >>> model = lambda rows: torch.stack([8 * rows[:, 0], torch.zeros(len(rows))], 1)
        >>> row, right, wrong = torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0, 1.0]]), torch.tensor([[1.0, 2.0]])
        >>> for maps in (right, wrong):
        ...     curves = insertion_deletion(model, row, torch.tensor([0]), maps, baseline=torch.zeros(2), steps=2)
        ...     print(curves.insertion.round(decimals=3).tolist())
        [[0.5, 1.0, 1.0]]
        [[0.5, 0.5, 1.0]]

    References:
        Petsiuk, Das and Saenko 2018, arXiv 1806.07421 (RISE), section 4.1; blurred start of the insertion as there.
    """
    images, targets = checked(images, targets)
    check_count(steps, "steps")
    check_maps_fit(maps, images)
    if baseline is None and images.dim() == 2:
        raise InvalidInputError("baseline: expected the data's mean for rows of shape (N, F), got None")
    known = ranking(maps).cpu()
    order = maps.detach().flatten(1).double().nan_to_num()
    counts = [round(k * order.shape[1] / steps) for k in range(steps + 1)]
    nothing = blurred(images) if baseline is None else broadcast(baseline, images, "baseline")
    with settled(), no_trace(model, images):
        parts = [
            _curves(model, *part, counts=counts)
            for part in zip(*(x.split(_IMAGES) for x in (images, targets, order, nothing)), strict=True)
        ]
    insertion, deletion = (torch.cat(curves) for curves in zip(*parts, strict=True))
    shares = torch.tensor(counts, dtype=torch.float64) / counts[-1]
    insertion, deletion = (curve.where(known[:, None], torch.nan) for curve in (insertion, deletion))
    return Curves(shares, insertion, deletion, torch.trapezoid(insertion, shares), torch.trapezoid(deletion, shares))


def blurred(images: Tensor) -> Tensor:
    """Images (N, C, ...) blurred along every spatial axis; at the edges what lies outside has no weight.

    Example:
        >>> torch.allclose(blurred(torch.full((1, 3, 8, 8), 0.25)), torch.tensor(0.25))  # nothing to blur
        True
    """
    for axis in range(2, images.dim()):
        places_ = torch.arange(images.shape[axis], dtype=torch.float64)
        deviation = max(_BLUR * len(places_), torch.finfo(torch.float32).tiny)
        weights = torch.softmax(-((places_[:, None] - places_) / deviation).square() / 2, 1)
        images = (images.movedim(axis, -1) @ weights.T.to(images)).movedim(-1, axis)
    return images


def _curves(
    model: Model, images: Tensor, targets: Tensor, order: Tensor, nothing: Tensor, *, counts: list[int]
) -> tuple[Tensor, Tensor]:
    def probability(inputs: Tensor) -> Tensor:
        return logits_of(model, inputs, targets).softmax(1).gather(1, targets[:, None])

    clean, floor = probability(images), probability(nothing)
    insertion, deletion = [floor], [clean]
    for count in counts[1:-1]:
        shown = _among_first(order, count).to(images).reshape(len(images), *_position_shape(images))
        insertion.append(probability(shown * images + (1 - shown) * nothing))
        deletion.append(probability(shown * nothing + (1 - shown) * images))
    both = (torch.cat([*insertion, clean], 1), torch.cat([*deletion, floor], 1))
    first, second = ((curve / clean).cpu() for curve in both)
    return first, second


def _among_first(order: Tensor, count: int) -> Tensor:
    if count == 0:
        return torch.zeros_like(order)
    return places(order, torch.full((len(order),), count, device=order.device))


def _position_shape(images: Tensor) -> tuple[int, ...]:
    return tuple(images.shape[1:]) if images.dim() == 2 else (1, *images.shape[2:])


def check_maps_fit(maps: Tensor, images: Tensor) -> None:
    """Raise unless there is one floating number for each position of the images, (N, ...)."""
    check_maps(maps, "maps")
    wanted = images.shape if images.dim() == 2 else (len(images), *images.shape[2:])
    if maps.shape != torch.Size(wanted):
        raise InvalidInputError(f"maps: expected one value for each position, {tuple(wanted)}, got {tuple(maps.shape)}")
