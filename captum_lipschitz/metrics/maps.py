"""What an explanation method says about images, brought to one number for each position."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz._memory import in_chunks
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

Explain: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``explain(images (N, ...), targets (N,))``: attributions of the images' shape, or a coarser (N, 1, h, w)."""

Make: TypeAlias = Callable[[Model], Explain]
"""``make(model)``: a method for a model, and for changed copies of it."""

_INTERPOLATIONS = {1: "linear", 2: "bilinear", 3: "trilinear"}


def position_maps(attributions: Tensor, images: Tensor, *, magnitude: bool = True) -> Tensor:
    """One value for each position: for pictures, (N, C, H, W), and other inputs with channels, their sum over these.

    An attribution of one coarser channel, as Grad-CAM's, is first brought to the images' size by (bi)linear
    interpolation. Rows without channels, (N, F), have a position for each feature.

    Args:
        attributions: the images' shape, or (N, 1, h, w) with h and w at most theirs.
        images: (N, ...); tell the shape only.
        magnitude: sum absolute values, as Ghorbani et al. do, rather than the signed ones.

    Returns:
        Maps (N, H, W), or for other inputs (N, ...) without the channels; differentiable.

    Raises:
        InvalidTypeError, InvalidInputError: attributions of another type or shape.

    Example:
        >>> images = torch.rand(1, 3, 4, 4)
        >>> position_maps(torch.ones(1, 3, 4, 4), images).shape, position_maps(torch.ones(1, 1, 2, 2), images).shape
        (torch.Size([1, 4, 4]), torch.Size([1, 4, 4]))

    References:
        Ghorbani, Abid and Zou 2019, arXiv 1710.10547; Selvaraju et al. 2017, arXiv 1610.02391 (Grad-CAM).
    """
    _check_floating(attributions)
    if attributions.shape != images.shape:
        attributions = _at_full_size(attributions, images)
    values = attributions.abs() if magnitude else attributions
    return values.sum(1) if images.dim() > 2 else values


def at_input_shape(attributions: Tensor, images: Tensor) -> Tensor:
    """Attributions of the images' shape: those of one coarser channel are enlarged, and the same for all channels.

    Raises:
        InvalidTypeError, InvalidInputError: attributions of another type or shape.

    Example:
        >>> at_input_shape(torch.ones(1, 1, 2, 2), torch.rand(1, 3, 4, 4)).shape
        torch.Size([1, 3, 4, 4])
    """
    _check_floating(attributions)
    return (attributions if attributions.shape == images.shape else _at_full_size(attributions, images)).expand_as(
        images
    )


def attributed(explain: Explain, images: Tensor, targets: Tensor) -> Tensor:
    """What a method says, without a graph. It gets copies: what it does to its arguments stays with it."""

    def attribute(start: int, stop: int) -> Tensor:
        with torch.enable_grad():
            attributions = explain(images[start:stop].detach().clone(), targets[start:stop].clone())
        return attributions.detach() if isinstance(attributions, Tensor) else attributions

    parts = in_chunks(attribute, len(images), what="explain", device=images.device)
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def check_explain(explain: object, name: str = "explain") -> None:
    """Raise unless a method can be called."""
    if not callable(explain):
        raise InvalidTypeError(
            f"{name}: expected a function of images and targets, got {type(explain).__name__}; for a Captum method "
            "lambda images, targets: method.attribute(images, target=targets)"
        )


def count_of(share: float, positions: int) -> int:
    """How many positions a share of them is: rounded, at least one."""
    return max(1, round(share * positions))


def check_share(share: object, name: str) -> None:
    """Raise unless a share lies strictly between 0 and 1."""
    if isinstance(share, bool) or not isinstance(share, (int, float)):
        raise InvalidTypeError(f"{name}: expected a number between 0 and 1, got {share!r}")
    if not 0 < share < 1:
        raise InvalidInputError(f"{name}: expected a share between 0 and 1, got {share}")


def check_maps(maps: object, name: str) -> None:
    """Raise unless these are floating maps, (N, ...); their values may be anything."""
    if not isinstance(maps, Tensor) or not maps.is_floating_point():
        kind = maps.dtype if isinstance(maps, Tensor) else type(maps).__name__
        raise InvalidTypeError(f"{name}: expected a floating tensor of maps, got {kind}")
    if maps.dim() < 2 or maps.numel() == 0:
        raise InvalidInputError(f"{name}: expected maps of shape (N, ...), got {tuple(maps.shape)}")


def ranking(maps: Tensor) -> Tensor:
    """Which maps, (N, ...), put positions into an order at all, (N,) bool: finite, and not the same everywhere."""
    flat = maps.detach().flatten(1)
    return torch.isfinite(flat).all(1) & (flat.amax(1) > flat.amin(1))


def _check_floating(attributions: object) -> None:
    if not isinstance(attributions, Tensor) or not attributions.is_floating_point():
        kind = attributions.dtype if isinstance(attributions, Tensor) else type(attributions).__name__
        raise InvalidTypeError(f"explain: expected a floating tensor of attributions, got {kind}")


def _at_full_size(attributions: Tensor, images: Tensor) -> Tensor:
    spatial, shape = images.shape[2:], attributions.shape
    fitting = len(spatial) in _INTERPOLATIONS and shape[:2] == (len(images), 1) and len(shape) == images.dim()
    if not fitting or any(have > wanted for have, wanted in zip(shape[2:], spatial, strict=True)):
        coarser = f", or (N, 1, ...) no finer than {tuple(spatial)}" if len(spatial) in _INTERPOLATIONS else ""
        raise InvalidInputError(
            f"explain: expected attributions of the images' shape, {tuple(images.shape)}{coarser}, got {tuple(shape)}"
        )
    if shape[2:] == spatial:
        return attributions
    return F.interpolate(attributions, spatial, mode=_INTERPOLATIONS[len(spatial)], align_corners=False)
