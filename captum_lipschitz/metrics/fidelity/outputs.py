"""What the model says, and what an explanation is, in the shape that the measures work with."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs, check_labels, check_logits
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds

_ROWS = 256  # images in one forward pass


def logits_of(model: Model, inputs: Tensor, targets: Tensor | None = None) -> Tensor:
    """The model's logits, (N, C) float64, without a graph; targets, any number, are checked to be among the classes."""
    if isinstance(model, RememberedModel):
        logits = model(inputs)
    else:
        with torch.no_grad():
            logits = torch.cat([check_logits(model(part), len(part)).double() for part in inputs.split(_ROWS)])
    if targets is not None:
        check_labels(targets, len(targets), logits.shape[1], "targets")
    return logits


class RememberedModel:
    """A model that is not run twice on the same image: several methods are measured on the same changed ones.

    The image of which blocks were removed, for one, is the same for all methods. What is kept are logits, by a hash of
    the image.

    Args:
        model: maps (N, ...) to logits (N, C); its parameters stay as they are as long as this lives.

    Example:
        >>> model = RememberedModel(torch.nn.Linear(4, 2))
        >>> rows = torch.rand(3, 4)
        >>> torch.equal(model(rows), model(rows)), len(model)
        (True, 3)
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        self._logits: dict[bytes, Tensor] = {}

    def __len__(self) -> int:
        return len(self._logits)

    def __call__(self, inputs: Tensor) -> Tensor:
        keys = [digest(image) for image in inputs.detach().cpu()]
        unknown = {key: row for row, key in enumerate(keys) if key not in self._logits}
        if unknown:
            logits = logits_of(self.model, inputs[list(unknown.values())])
            self._logits.update(zip(unknown, logits.cpu(), strict=True))
        return torch.stack([self._logits[key] for key in keys]).to(inputs.device)


def digest(image: Tensor, start: bytes = b"") -> bytes:
    """Eight bytes that tell an image, (...) on the CPU, from others, whatever its floating dtype."""
    return hashlib.blake2b(start + image.double().contiguous().numpy().tobytes(), digest_size=8).digest()


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
