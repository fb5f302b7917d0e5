"""What the model says, and what an explanation is, in the shape that the measures work with."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs, check_labels, check_logits
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds

_ROWS = 256  # images in one forward pass


def logits_of(model: Model, inputs: Tensor) -> Tensor:
    """The model's logits, (N, C) float64, without a graph."""
    with torch.no_grad():
        return torch.cat([check_logits(model(part), len(part)).double() for part in inputs.split(_ROWS)])


def checked(
    images: Tensor, targets: Tensor, bounds: Bounds | tuple[float, float] | None = None
) -> tuple[Tensor, Tensor]:
    """Images and their targets, fit to be worked with, and within their bounds."""
    images = check_inputs(images, "images").detach()
    targets = check_labels(targets, len(images), name="targets").to(images.device)
    box = Bounds.of(bounds)
    if box is not None:
        box.check(images, "images")
    return (images.clone() if images.is_inference() else images), (
        targets.clone() if targets.is_inference() else targets
    )


def broadcast(values: Tensor | float, images: Tensor, name: str) -> Tensor:
    """Values for each feature of each image, in the images' dtype, from a number, one image's, or all images'."""
    try:
        return torch.as_tensor(values, dtype=images.dtype, device=images.device).detach().expand_as(images)
    except RuntimeError as error:
        raise InvalidInputError(
            f"{name}: expected values that broadcast to the images, {tuple(images.shape)} ({error})"
        ) from error


def usable(attributions: Tensor) -> Tensor:
    """Which attributions, (N, ...), say anything: (N,) bool, finite and not zero everywhere."""
    flat = attributions.flatten(1)
    return torch.isfinite(flat).all(1) & (flat != 0).any(1)
