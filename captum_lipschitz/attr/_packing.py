"""Several input tensors as one: rows of all features side by side, so that one budget covers them all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


@dataclass(frozen=True)
class Packed:
    """A tuple of inputs, each (N, ...), as one tensor of shape (N, features), with all that belongs to its rows.

    Attributes:
        features: (N, features), all inputs flattened and joined.
        shapes, dtypes: of each input.
        target: what to explain, in Captum's forms.
        arguments: additional arguments of the forward function.
        scale, mask: (N, features) or ``None``.
    """

    features: Tensor
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    target: Any
    arguments: tuple[Any, ...]
    scale: Tensor | None
    mask: Tensor | None

    @classmethod
    def of(cls, inputs: tuple[Tensor, ...], *, target: Any, arguments: Any, scale: Any, mask: Any) -> Packed:
        """Check the inputs and join them."""
        for position, tensor in enumerate(inputs):
            if len(inputs) > 1 and isinstance(tensor, Tensor) and not tensor.is_floating_point():
                raise InvalidTypeError(
                    f"inputs[{position}]: expected floating point values, got {tensor.dtype}; "
                    "what is not to be perturbed belongs into additional_forward_args"
                )
            check_inputs(tensor, "inputs" if len(inputs) == 1 else f"inputs[{position}]")
            if len(tensor) != len(inputs[0]):
                raise InvalidInputError(
                    f"inputs: expected the same number of rows in every tensor, got {[len(t) for t in inputs]}"
                )
        return cls(
            features=_join(tuple(_own(tensor.detach()) for tensor in inputs)),
            shapes=tuple(tensor.shape[1:] for tensor in inputs),
            dtypes=tuple(tensor.dtype for tensor in inputs),
            target=_own(target),
            arguments=() if arguments is None else tuple(_own(argument) for argument in arguments),
            scale=_broadcast(scale, inputs, "scale"),
            mask=_broadcast(mask, inputs, "mask"),
        )

    def __len__(self) -> int:
        return len(self.features)

    def unpack(self, features: Tensor) -> tuple[Tensor, ...]:
        """(N, features) to tensors of the inputs' shapes and dtypes."""
        parts = features.split([shape.numel() for shape in self.shapes], dim=1)
        return tuple(
            part.reshape(len(features), *shape).to(dtype)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        )

    def batches(self, size: int | None) -> Iterator[Packed]:
        """Consecutive batches of at most ``size`` examples (all at once where ``None``), cut by index alone."""
        step = size or len(self)
        for start in range(0, len(self), step):
            yield self._rows(slice(start, start + step))

    def _rows(self, rows: slice) -> Packed:
        total = len(self)
        return replace(
            self,
            features=self.features[rows],
            target=self.target[rows] if isinstance(self.target, list) else _take(self.target, rows, total),
            arguments=tuple(_take(argument, rows, total) for argument in self.arguments),
            scale=_take(self.scale, rows, total),
            mask=_take(self.mask, rows, total),
        )


def _own(value: Any) -> Any:
    """A tensor made in inference mode cannot be saved for a backward pass; its copy can."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _take(value: Any, rows: slice, num_rows: int) -> Any:
    """The rows of a tensor with one entry per example; anything else unchanged."""
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == num_rows:
        return value[rows]
    return value


def _join(tensors: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([tensor.flatten(1) for tensor in tensors], dim=1)


def _broadcast(value: Any, inputs: tuple[Tensor, ...], name: str) -> Tensor | None:
    """``value`` (a number, a tensor, or a tuple of one for each input) at the full shape of the joined inputs."""
    if value is None:
        return None
    values = value if isinstance(value, tuple) else (value,) * len(inputs)
    if len(values) != len(inputs):
        raise InvalidInputError(f"{name}: expected one entry for each of {len(inputs)} inputs, got {len(values)}")
    try:
        return _join(
            tuple(
                torch.as_tensor(v, dtype=x.dtype, device=x.device).broadcast_to(x.shape)
                for v, x in zip(values, inputs, strict=True)
            )
        )
    except (RuntimeError, TypeError) as error:
        raise InvalidTypeError(f"{name}: expected numbers or tensors that broadcast to the inputs ({error})") from error
