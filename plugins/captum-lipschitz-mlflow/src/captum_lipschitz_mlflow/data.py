"""Images and labels, in the shape that the network takes, of the flat table that MLflow hands to an evaluator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


def images_of(features: Any, *, shape: Sequence[int] | None, dtype: torch.dtype) -> Tensor:
    """The inputs of all rows, (N, ...).

    Args:
        features: MLflow's ``features_data``: an array (N, D); or a frame, with a column for each number or with a
            single column of arrays.
        shape: of one input; ``None`` leaves it as it is in ``features``.
        dtype: of the result, where the features are floating; those of a frame are made floating, as MLflow does.

    Raises:
        InvalidInputError, InvalidTypeError: for features that are no numbers, or too many or few for the shape.

    Example:
        >>> images_of(np.zeros((2, 12), np.float32), shape=[3, 2, 2], dtype=torch.float32).shape
        torch.Size([2, 3, 2, 2])
    """
    array = _array(features)
    if array.dtype.kind != "f":
        raise InvalidTypeError(
            f"data: expected floating point values (images in [0, 1]), got {array.dtype}; convert with images / 255"
        )
    images = torch.tensor(array).to(dtype)
    if shape is None:
        return images
    if math.prod(shape) != images[:1].numel():
        raise InvalidInputError(
            f"data: expected rows of {math.prod(shape)} numbers for inputs of shape {tuple(shape)}, got "
            f"{tuple(images.shape[1:])}; set input_shape in evaluator_config"
        )
    return images.reshape(len(images), *shape)


def labels_of(targets: Any) -> Tensor:
    """The class of each row, (N,) int64.

    Args:
        targets: MLflow's ``labels_data``: integers, booleans, or floating numbers that are whole.

    Raises:
        InvalidTypeError: no targets, or others.
    """
    if targets is None:
        raise InvalidTypeError("targets: expected the classes' numbers, got none")
    array = np.asarray(targets)
    whole = array.dtype.kind == "f" and bool((array == np.floor(array)).all())
    if array.dtype.kind not in "iub" and not whole:
        raise InvalidTypeError(
            f"targets: expected the classes' numbers 0..C-1, got {array.dtype}, as {array[:3].tolist()}"
        )
    return torch.tensor(array.astype(np.int64))


def signature_shape(model: Any) -> tuple[int, ...] | None:
    """Shape of one input in the model's signature, where that is one tensor of any number of them; else ``None``."""
    metadata = getattr(model, "metadata", None)
    schema = None if metadata is None else metadata.get_input_schema()
    if schema is None or not schema.is_tensor_spec() or len(schema.inputs) != 1:
        return None
    shape = tuple(int(size) for size in schema.inputs[0].shape)
    return shape[1:] if len(shape) > 1 and all(size > 0 for size in shape[1:]) else None


def dtype_of(network: nn.Module) -> torch.dtype:
    """The floating dtype of the first parameter that has one; a network without is given float32."""
    return next((tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()), torch.float32)


def _array(features: Any) -> np.ndarray[Any, np.dtype[Any]]:
    if isinstance(features, np.ndarray):
        return features
    try:
        if features.shape[1] == 1 and features.dtypes.iloc[0].kind == "O":
            return np.stack([np.asarray(value, dtype=np.float32) for value in features.iloc[:, 0]])
        # Row by row, as images are: pandas may give columns, whose sums differ in their last bit.
        return np.ascontiguousarray(features.to_numpy(dtype=np.float32))
    except (TypeError, ValueError) as error:
        raise InvalidInputError(
            "data: expected columns of numbers, or a single column of arrays of one shape, got "
            f"{dict(features.dtypes.astype(str).value_counts())} ({error})"
        ) from error
