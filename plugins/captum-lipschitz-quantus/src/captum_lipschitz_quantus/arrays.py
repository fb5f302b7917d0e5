"""From Quantus's arrays to tensors as the model takes them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


def to_inputs(inputs: NDArray[Any] | Tensor, model: nn.Module, device: torch.device | str | None) -> Tensor:
    """A copy of the inputs, (N, ...), in the model's floating dtype (float32 without parameters), on its device.

    Raises:
        InvalidInputError, InvalidTypeError: for what is no batch of numbers.
    """
    array = inputs.detach().cpu().numpy() if isinstance(inputs, Tensor) else inputs
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        got = f"an array of {array.dtype}" if isinstance(array, np.ndarray) else type(inputs).__name__
        raise InvalidTypeError(f"inputs: expected an array of numbers, got {got}")
    if array.ndim < 2 or not array.size:
        raise InvalidInputError(f"inputs: expected a non-empty batch of shape (N, ...), got {array.shape}")
    parameter = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
    place = torch.device(device) if device is not None else parameter.device
    return torch.tensor(_native(array), dtype=parameter.dtype, device=place)


def to_targets(targets: NDArray[Any] | Tensor | int, inputs: Tensor) -> Tensor:
    """Classes, (N,) int64, on the inputs' device; one class stands for all images.

    Raises:
        InvalidInputError, InvalidTypeError: for what is not one class per image.
    """
    array = targets.detach().cpu().numpy() if isinstance(targets, Tensor) else np.asarray(targets)
    if array.dtype.kind not in "iu" and not _whole(array):
        raise InvalidTypeError(f"targets: expected integer classes, got {array.dtype}")
    if array.shape not in {(), (1,), (len(inputs),)}:
        raise InvalidInputError(
            f"targets: expected one class per image, shape ({len(inputs)},), got {array.shape}; of one-hot rows take "
            "the argmax"
        )
    classes = torch.as_tensor(array.astype(np.int64), device=inputs.device)
    return classes.reshape(-1).expand(len(inputs)).clone()


def _native(array: NDArray[Any]) -> NDArray[Any]:
    """The numbers as torch takes them: this machine's byte order, at most 64 bits each, contiguous."""
    # Read from a file the bytes may be the other way round; torch refuses those, and numbers of more than 64 bits.
    dtype = array.dtype.newbyteorder("=") if array.dtype.itemsize <= 8 else np.dtype(np.float64)
    return np.ascontiguousarray(array, dtype=dtype)


def _whole(array: NDArray[Any]) -> bool:
    """Floating whole numbers, which are what classes become in an array that holds other things too."""
    return array.dtype.kind == "f" and bool(np.all(array == np.round(array)))
