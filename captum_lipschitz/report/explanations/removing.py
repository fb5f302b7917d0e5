"""Occlusion and LIME: what becomes of the output where parts of the input are taken away, in Captum's classes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from captum.attr import Lime, Occlusion
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.metrics.maps import Explain
from captum_lipschitz.report.explanations.explaining import Setting, explaining, one_by_one


def windows(spatial: Sequence[int], parts: int) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Windows that slide over the positions, each half over the next one.

    Args:
        spatial: sizes of the positions' axes.
        parts: steps to an axis, about: a stride is a part of it, a window two of them.

    Returns:
        ``(window, stride, number of windows)``.

    Example:
        >>> windows((32, 32), 8)
        ((8, 8), (4, 4), 49)
    """
    stride = tuple(max(1, math.ceil(size / parts)) for size in spatial)
    window = tuple(min(size, 2 * step) for size, step in zip(spatial, stride, strict=True))
    counts = [math.ceil((size - w) / s) + 1 for size, w, s in zip(spatial, window, stride, strict=True)]
    return window, stride, math.prod(counts)


def patches(shape: Sequence[int], parts: int) -> Tensor:
    """A grid of patches as Captum's feature mask: the patch's number at each value, (1, ...) int64.

    Args:
        shape: of one input, without the batch: (F,), whose features are patches of their own, or (C, ...).
        parts: patches to an axis, at most.

    Example:
        >>> patches((1, 4, 4), 2)[0, 0]
        tensor([[0, 0, 1, 1],
                [0, 0, 1, 1],
                [2, 2, 3, 3],
                [2, 2, 3, 3]])
    """
    if len(shape) == 1:
        return torch.arange(shape[0])[None]
    number = torch.zeros((), dtype=torch.long)
    for size in shape[1:]:
        count = min(parts, size)
        number = number[..., None] * count + torch.arange(size) * count // size
    return number.expand(1, *shape).contiguous()


def occlusion(model: Model, setting: Setting, *, parts: int) -> Explain:
    """Zeiler and Fergus: how much the logit falls where a window is filled with the baseline, mean over windows.

    Args:
        model: maps inputs to logits (N, C).
        setting: see there.
        parts: see ``windows``; rows (N, F) lose one feature at a time.
    """
    method = Occlusion(model)

    def answer(image: Tensor, target: Tensor) -> Tensor:
        settings: dict[str, Any] = {"sliding_window_shapes": (1,)}
        if image.dim() > 2:
            window, stride, _ = windows(image.shape[2:], parts)
            channels = image.shape[1]
            settings = {"sliding_window_shapes": (channels, *window), "strides": (channels, *stride)}
        filled = filling(image, setting.baseline)
        found: Tensor = method.attribute(
            image, baselines=filled, target=target, perturbations_per_eval=setting.rows, **settings
        )
        return found

    return explaining(model, one_by_one(answer), setting)


def lime(model: Model, setting: Setting, *, parts: int, samples: int) -> Explain:
    """Ribeiro et al.: the weights of a linear model of which patches are there, fitted to the logit.

    Captum's ``Lime`` with its own similarity and draws, each patch there or not with probability 1/2; the linear model
    is a ridge regression, as in the authors' own code for images.

    Args:
        model: maps inputs to logits (N, C).
        setting: see there.
        parts: see ``patches``.
        samples: evaluations to fit to.
    """
    method = Lime(model, interpretable_model=_Ridge())

    def answer(image: Tensor, target: Tensor) -> Tensor:
        found: Tensor = method.attribute(
            image,
            baselines=filling(image, setting.baseline),
            target=target,
            feature_mask=patches(image.shape[1:], parts).to(image.device),
            n_samples=samples,
            perturbations_per_eval=setting.rows,
        )
        return found

    return explaining(model, one_by_one(answer, setting.seed), setting)


def filling(images: Tensor, baseline: Tensor | None) -> Tensor:
    """What stands for "not there", of the images' shape: the baseline, or each one's channels' means; of rows, zero."""
    if baseline is not None:
        return baseline.to(images).expand_as(images)
    if images.dim() == 2:
        return torch.zeros_like(images)
    return images.mean(tuple(range(2, images.dim())), keepdim=True).expand_as(images)


class _Ridge:
    """A weighted ridge regression with an intercept, in closed form, as a model of Captum's ``Lime``."""

    penalty = 1.0  # scikit-learn's default, which the authors of LIME use

    def __init__(self) -> None:
        self.weights = torch.zeros(0)

    def fit(self, data: Any) -> None:
        """Fit to ``(there (n, patches), outputs (n,), similarities (n,))``, all in one batch."""
        ((there, outputs, similarity),) = data
        device = there.device
        there, outputs, similarity = there.cpu().double(), outputs.cpu().double(), similarity.cpu().double()
        share = similarity / similarity.sum()
        centred = there - share @ there
        weighted = centred * similarity[:, None]
        gram = weighted.T @ centred + self.penalty * torch.eye(there.shape[1], dtype=there.dtype)
        self.weights = torch.linalg.solve(gram, weighted.T @ (outputs - share @ outputs)).float().to(device)

    def representation(self) -> Tensor:
        """The weight of each patch."""
        return self.weights
