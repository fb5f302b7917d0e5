"""Several input tensors as one: rows of all features side by side, so that one budget covers them all."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds


@dataclass(frozen=True)
class Packed:
    """A tuple of inputs, each (N, ...), as one tensor of shape (N, features), with all that belongs to its rows.

    Attributes:
        features: (N, features), all inputs flattened and joined, in single precision at least.
        shapes, dtypes: of each input.
        arguments: additional arguments of the forward function.
        per_example: which of them are tensors of one entry per example. Settled once: a selection of examples may have
            as many rows as a tensor that all examples share.
        target, baseline_target: what to explain, and against what, in Captum's forms.
        scale: (N, features) or ``None``.
        mask: (N, features) bool, where features may change, or ``None``.
        bounds: numbers, or tensors (N, features), or ``None``.
    """

    features: Tensor
    shapes: tuple[torch.Size, ...]
    dtypes: tuple[torch.dtype, ...]
    arguments: tuple[Any, ...] = ()
    per_example: tuple[bool, ...] = ()
    target: Any = None
    baseline_target: Any = None
    scale: Tensor | None = None
    mask: Tensor | None = None
    bounds: Bounds | None = None

    @classmethod
    def of(
        cls,
        inputs: tuple[Tensor, ...],
        *,
        arguments: tuple[Any, ...] = (),
        target: Any = None,
        baseline_target: Any = None,
        scale: Any = None,
        mask: Any = None,
        bounds: Any = None,
        name: str = "inputs",
    ) -> Packed:
        """Check the inputs, called ``name`` in messages, and join them."""
        _check(inputs, name)
        kept = _broadcast(mask, inputs, "mask")
        packed = cls(
            features=_join(tuple(own(tensor.detach()) for tensor in inputs)),
            shapes=tuple(tensor.shape[1:] for tensor in inputs),
            dtypes=tuple(tensor.dtype for tensor in inputs),
            arguments=tuple(own(argument) for argument in arguments),
            per_example=tuple(_has_rows(argument, len(inputs[0])) for argument in arguments),
            target=own(target),
            baseline_target=own(baseline_target),
            scale=_broadcast(scale, inputs, "scale"),
            mask=None if kept is None else kept != 0,
            bounds=_limits(bounds, inputs),
        )
        if packed.bounds is not None:
            packed.bounds.check(packed.features, name)
        return packed

    def __len__(self) -> int:
        return len(self.features)

    @property
    def widths(self) -> list[int]:
        """Each input's number of features."""
        return [shape.numel() for shape in self.shapes]

    def unpack(self, features: Tensor) -> tuple[Tensor, ...]:
        """(N, features) to tensors of the inputs' shapes and dtypes."""
        parts = features.split(self.widths, dim=1)
        return tuple(
            part.reshape(len(features), *shape).to(dtype)
            for part, shape, dtype in zip(parts, self.shapes, self.dtypes, strict=True)
        )

    def rounded(self, features: Tensor) -> Tensor:
        """(N, features) at the inputs' own precision."""
        return _join(self.unpack(features)).to(features.dtype)

    def rows(self, index: slice | Tensor) -> Packed:
        """A selection of the examples, with all that belongs to them."""
        total = len(self)
        return replace(
            self,
            features=self.features[index],
            arguments=tuple(
                take(argument, index, total) if own_rows else argument
                for argument, own_rows in zip(self.arguments, self.per_example, strict=True)
            ),
            target=_take_target(self.target, index, total),
            baseline_target=_take_target(self.baseline_target, index, total),
            scale=None if self.scale is None else self.scale[index],
            mask=None if self.mask is None else self.mask[index],
            bounds=None if self.bounds is None else Bounds(*(take(limit, index, total) for limit in self.bounds)),
        )


def take(value: Any, index: slice | Tensor, num_rows: int) -> Any:
    """The rows of a tensor with one entry per example; anything else unchanged."""
    if _has_rows(value, num_rows):
        return value[index if isinstance(index, slice) else index.to(value.device)]
    return value


def _has_rows(value: Any, num_rows: int) -> bool:
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == num_rows


def _take_target(target: Any, index: slice | Tensor, num_rows: int) -> Any:
    if not isinstance(target, list):
        return take(target, index, num_rows)
    return target[index] if isinstance(index, slice) else [target[i] for i in index.tolist()]


def own(value: Any) -> Any:
    """A tensor made in inference mode cannot be saved for a backward pass; its copy can."""
    return value.clone() if isinstance(value, Tensor) and value.is_inference() else value


def _check(inputs: tuple[Tensor, ...], name: str) -> None:
    for position, tensor in enumerate(inputs):
        if len(inputs) > 1 and isinstance(tensor, Tensor) and not tensor.is_floating_point():
            raise InvalidTypeError(
                f"{name}[{position}]: expected floating point values, got {tensor.dtype}; "
                "what is not to be perturbed belongs into additional_forward_args"
            )
        check_inputs(tensor, name if len(inputs) == 1 else f"{name}[{position}]", at_least=1)
        if len(tensor) != len(inputs[0]):
            raise InvalidInputError(
                f"{name}: expected the same number of rows in every tensor, got {[len(t) for t in inputs]}"
            )


def _join(tensors: tuple[Tensor, ...]) -> Tensor:
    rows = [tensor.reshape(len(tensor), -1) for tensor in tensors]
    joined = rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)
    # Steps are small beside the inputs: in half precision most of them would be rounded away.
    return joined.float() if joined.dtype in (torch.float16, torch.bfloat16) else joined


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


def _limits(bounds: Any, inputs: tuple[Tensor, ...]) -> Bounds | None:
    """Bounds as numbers, or at the full shape of the joined inputs where a limit is a tensor, or one for each input."""
    if bounds is None:
        return None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise InvalidTypeError(f"bounds: expected a pair (lower, upper) or None, got {bounds!r}")
    ends = [end if limit is None else limit for limit, end in zip(bounds, (-math.inf, math.inf), strict=True)]
    if all(isinstance(limit, (int, float)) for limit in ends):
        return Bounds.of((ends[0], ends[1]))
    lower, upper = (_broadcast(limit, inputs, "bounds") for limit in ends)
    return Bounds.of((lower, upper))  # type: ignore[arg-type]
