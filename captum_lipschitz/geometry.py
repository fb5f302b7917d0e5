"""How large a perturbation is, which way is steepest, and where a hyperplane is nearest.

A norm is an object, so that an attack's loop is written once. All functions work row by row on tensors of shape
(N, ...): row ``i`` belongs to image ``i`` and never looks at its neighbours.
"""

from __future__ import annotations

import math
import zlib
from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

_BISECTIONS, _DOUBLINGS = 30, 20
_TINY = 1e-12


def rowwise(values: Tensor, like: Tensor) -> Tensor:
    """Reshape one value per image, (N,), so that it broadcasts against ``like``, (N, ...).

    Args:
        values: (N,).
        like: (N, ...).

    Returns:
        (N, 1, ..., 1), with as many dimensions as ``like``.
    """
    return values.reshape(-1, *([1] * (like.dim() - 1)))


def row_dot(a: Tensor, b: Tensor) -> Tensor:
    """Inner product of matching rows of two (N, ...) tensors, shape (N,).

    Args:
        a: (N, ...).
        b: of the same shape.

    Returns:
        (N,), in the product of their units.
    """
    return (a * b).flatten(1).sum(1)


def _over(delta: Tensor, sizes: Tensor) -> Tensor:
    """``delta`` with each row divided by its size; rows of size zero stay zero."""
    return delta / rowwise(torch.where(sizes > 0, sizes, torch.ones_like(sizes)), delta)


def _numbers(limit: object) -> object:
    return limit.tolist() if isinstance(limit, Tensor) else float(limit) if isinstance(limit, int) else limit


class Bounds(NamedTuple):
    """The box that perturbed inputs must stay in, in the inputs' own units (for images usually 0 and 1).

    Each limit is a number, or a tensor that broadcasts to the inputs: features of a table have ranges of their own.
    Attacks take the limits of one image, for all images alike.

    Example:
        >>> Bounds(0.0, 1.0).clamp(torch.tensor([-0.5, 0.25]))
        tensor([0.0000, 0.2500])
        >>> Bounds.of((0.0, torch.tensor([1.0, 9.0]))).clamp(torch.tensor([[5.0, 5.0]]))
        tensor([[1., 5.]])
    """

    lower: float | Tensor
    upper: float | Tensor

    @classmethod
    def of(cls, value: Bounds | tuple[float | Tensor, float | Tensor] | None) -> Bounds | None:
        """Read a ``(lower, upper)`` pair; ``None`` means unbounded and stays ``None``.

        Raises:
            InvalidInputError, InvalidTypeError: what is no pair, or a lower limit above the upper one.
        """
        if value is None:
            return None
        if not isinstance(value, (tuple, list)) or len(value) != 2:
            raise InvalidTypeError(f"bounds: expected a pair (lower, upper) or None, got {value!r}")
        lower, upper = (limit.detach() if isinstance(limit, Tensor) else float(limit) for limit in value)
        if isinstance(lower, float) and isinstance(upper, float):
            if not lower < upper:
                raise InvalidInputError(f"bounds: expected lower < upper, got ({lower}, {upper})")
        elif not bool(torch.as_tensor(lower <= upper).all()):  # a feature of one value is one that cannot change
            raise InvalidInputError("bounds: expected lower <= upper for every feature, got some the other way round")
        return cls(lower, upper)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, tuple) or len(other) != 2:
            return False
        return _numbers(self[0]) == _numbers(other[0]) and _numbers(self[1]) == _numbers(other[1])

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __hash__(self) -> int:
        return hash(str([_numbers(limit) for limit in self]))

    def like(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Lower and upper limit of each value, broadcast to ``inputs``."""
        lower, upper = (torch.as_tensor(x, dtype=inputs.dtype, device=inputs.device).expand_as(inputs) for x in self)
        return lower, upper

    def check_shared(self, inputs: Tensor) -> None:
        """Raise ``InvalidInputError`` unless the limits are those of one image, for inputs (N, ...).

        Raises:
            InvalidInputError: limits of each image of its own.
        """
        for limit in self:
            if isinstance(limit, Tensor) and limit.dim() >= inputs.dim() and len(limit) != 1:
                raise InvalidInputError(
                    f"bounds: expected limits that broadcast to one image, {tuple(inputs.shape[1:])}, got "
                    f"{tuple(limit.shape)}"
                )

    def clamp(self, inputs: Tensor) -> Tensor:
        """The nearest point of the box, elementwise."""
        if isinstance(self.lower, Tensor) or isinstance(self.upper, Tensor):
            return inputs.clamp(*self.like(inputs))
        return inputs.clamp(self.lower, self.upper)

    def check(self, inputs: Tensor, name: str = "inputs") -> None:
        """Raise ``InvalidInputError`` unless every value lies in the box, and the box fits the inputs.

        Raises:
            InvalidInputError: values outside, with their number and range, or limits that do not broadcast.
        """
        try:
            lower, upper = self.like(inputs)
        except RuntimeError as error:
            raise InvalidInputError(
                f"bounds: expected limits that broadcast to the {name}, {tuple(inputs.shape)} ({error})"
            ) from error
        outside = (inputs < lower) | (inputs > upper)
        if bool(outside.any()):
            limits, values = f"[{float(lower.min())}, {float(upper.max())}]", inputs[outside]
            raise InvalidInputError(
                f"{name}: expected values within the bounds {limits}, got {len(values)} outside, "
                f"from {float(values.min())} to {float(values.max())}"
            )


class Norm(ABC):
    """A measure of perturbations, optionally in units of each feature's ``scale``.

    Args:
        scale: positive, broadcast to one image; sizes are then of ``delta / scale``. ``None`` is 1.

    Raises:
        InvalidInputError: a scale that is not positive throughout, or not finite.
    """

    name: str

    def __init__(self, scale: Tensor | float | None = None) -> None:
        if scale is not None and not bool(
            ((values := torch.as_tensor(scale)) > 0).logical_and(values < math.inf).all()
        ):
            raise InvalidInputError("scale: expected positive values, got zero, a negative value, infinity or NaN")
        self.scale = scale

    def __repr__(self) -> str:
        return f"{type(self).__name__}({'' if self.scale is None else 'scale=...'})"

    @property
    def unit(self) -> str:
        """What sizes are in: the norm's name, and what the scale is where there is one (of a tensor, a checksum).

        Example:
            >>> RMSE().unit, RMSE(scale=10.0).unit
            ('rmse', 'rmse over scale 10')
        """
        if self.scale is None:
            return self.name
        scale = torch.as_tensor(self.scale).detach().double().cpu()
        if scale.numel() == 1:
            return f"{self.name} over scale {float(scale):g}"
        return f"{self.name} over scale {zlib.crc32(repr((tuple(scale.shape), scale.tolist())).encode()):08x}"

    def check(self, inputs: Tensor) -> None:
        """Raise ``InvalidInputError`` unless the scale is that of one image, for inputs (N, ...).

        Raises:
            InvalidInputError: a scale that differs between images, or does not broadcast to one.
        """
        if self.scale is None:
            return
        shape, one_image = tuple(torch.as_tensor(self.scale).shape), (1, *inputs.shape[1:])
        try:
            fits = torch.broadcast_shapes(shape, one_image) == one_image
        except RuntimeError:
            fits = False
        if not fits:
            raise InvalidInputError(
                f"scale: expected it to broadcast to one image {tuple(inputs.shape[1:])}, got {shape}"
            )

    def size(self, delta: Tensor) -> Tensor:
        """Size of each row's perturbation: (N, ...) to (N,), at least 0."""
        # Squares of small values in half precision are zero.
        precise = delta.float() if delta.dtype in (torch.float16, torch.bfloat16) else delta
        return self._size(self._divided(precise).flatten(1)).to(delta.dtype)

    def normalised(self, delta: Tensor) -> Tensor:
        """Each row at size 1 along its own direction; a row of zeros stays zero."""
        return _over(delta, self.size(delta))

    def steepest(self, gradient: Tensor) -> Tensor:
        """The perturbation of size 1 along which ``gradient`` promises the largest gain; zero where it is zero."""
        scaled = self._multiplied(gradient)
        # Squares of tiny gradients (saturated networks) underflow: those are divided by their largest entry first.
        peak = scaled.flatten(1).abs().amax(1)
        peak = torch.where((peak > _TINY) & (peak < 1 / _TINY), torch.ones_like(peak), peak)
        return self._multiplied(self._steepest(_over(scaled, peak)))

    def to_hyperplane(
        self, start: Tensor, normal: Tensor, offset: Tensor, *, limit: Tensor, box: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Move each row of ``start`` by the smallest step onto the hyperplane ``normal . delta = offset``.

        Args:
            start: perturbations, (N, ...).
            normal: the hyperplanes' normals, (N, ...).
            offset: their offsets, (N,).
            limit: the largest step allowed, in this norm, (N,). A row that would have to go further stops there.
            box: lower and upper limit of the perturbation, each (N, ...). The projection is then onto the hyperplane
                within the box, found by bisecting the multiplier of the steepest direction.

        Returns:
            Perturbations, (N, ...); rows whose normal is zero are returned unmoved.
        """
        direction = self.steepest(normal)
        gain = row_dot(normal, direction)
        if box is not None:
            return self._to_hyperplane_in_box(start, normal, direction, offset, limit, box)
        gap = offset - row_dot(normal, start)
        step = torch.where(gain > 0, gap / torch.where(gain > 0, gain, torch.ones_like(gain)), torch.zeros_like(gap))
        return start + rowwise(step.clamp(-limit, limit), start) * direction

    def _to_hyperplane_in_box(
        self,
        start: Tensor,
        normal: Tensor,
        direction: Tensor,
        offset: Tensor,
        limit: Tensor,
        box: tuple[Tensor, Tensor],
    ) -> Tensor:
        """Along ``clamp(start + t * direction)`` the product with ``normal`` is monotone in t: bracket, then bisect."""
        start = torch.minimum(torch.maximum(start, box[0]), box[1])
        sign = torch.where(row_dot(normal, start) > offset, -1.0, 1.0).to(start.dtype)

        def point(t: Tensor) -> Tensor:
            return torch.minimum(torch.maximum(start + rowwise(sign * t, start) * direction, box[0]), box[1])

        def short(t: Tensor) -> Tensor:
            return sign * (offset - row_dot(normal, point(t))) > 0

        # Where features stop at the box, the others go further than the move as a whole. What is still short after so
        # many doublings cannot be reached within the box.
        near, far = torch.zeros_like(limit), limit
        for _ in range(_DOUBLINGS):
            too_short = short(far)
            if not bool(too_short.any()):
                break
            near, far = torch.where(too_short, far, near), torch.where(too_short, 2 * far, far)
        for _ in range(_BISECTIONS):
            middle = (near + far) / 2
            too_short = short(middle)
            near, far = torch.where(too_short, middle, near), torch.where(too_short, far, middle)
        move = point(far) - start
        size = self.size(move)
        share = torch.where(size > limit, limit / torch.where(size > 0, size, torch.ones_like(size)), 1.0)
        return start + rowwise(share.to(start.dtype), start) * move

    def distance_to_hyperplane(self, value: Tensor, normal: Tensor) -> Tensor:
        """Size of the smallest perturbation that brings a linear function from ``value`` to 0, (N,)."""
        gain = row_dot(normal, self.steepest(normal))
        return torch.where(gain > 0, value.abs() / gain, torch.full_like(value, math.inf))

    @abstractmethod
    def unit_in_l2(self, delta: Tensor) -> float:
        """The size, in this norm, of a perturbation of L2 length 1 spread evenly over all features of an image."""

    @abstractmethod
    def _size(self, flat: Tensor) -> Tensor: ...

    @abstractmethod
    def _steepest(self, scaled: Tensor) -> Tensor: ...

    def _divided(self, delta: Tensor) -> Tensor:
        return delta if self.scale is None else delta / self._scale_like(delta)

    def _multiplied(self, delta: Tensor) -> Tensor:
        return delta if self.scale is None else delta * self._scale_like(delta)

    def _scale_like(self, delta: Tensor) -> Tensor:
        return torch.as_tensor(self.scale, dtype=delta.dtype, device=delta.device)


class L2(Norm):
    """Euclidean length: the root of the sum of squares over all features of an image, in the inputs' units.

    Example:
        >>> L2().size(torch.tensor([[3.0, 4.0]]))
        tensor([5.])
    """

    name = "l2"

    def unit_in_l2(self, delta: Tensor) -> float:
        del delta
        return 1.0

    def _size(self, flat: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(flat, dim=1)
        return length

    def _steepest(self, scaled: Tensor) -> Tensor:
        return _over(scaled, self._size(scaled.flatten(1)))


class RMSE(L2):
    """Root of the mean square over one image's channels and pixels: the paper's rho (L2 over the root of their number).

    Sizes are in the inputs' units: of images in [0, 1], 0.01 is 2.55 grey levels of 255.

    Example:
        >>> RMSE().size(torch.full((1, 3, 2, 2), 0.5))
        tensor([0.5000])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896.
    """

    name = "rmse"

    def unit_in_l2(self, delta: Tensor) -> float:
        return 1.0 / math.sqrt(max(1, delta[0].numel()))

    def _size(self, flat: Tensor) -> Tensor:
        return flat.square().mean(1).sqrt()


class Linf(Norm):
    """Largest absolute change of any feature, in the inputs' units.

    Example:
        >>> Linf().size(torch.tensor([[3.0, -4.0]]))
        tensor([4.])
    """

    name = "linf"

    def unit_in_l2(self, delta: Tensor) -> float:
        return 1.0 / math.sqrt(max(1, delta[0].numel()))

    def _size(self, flat: Tensor) -> Tensor:
        return flat.abs().amax(1)

    def _steepest(self, scaled: Tensor) -> Tensor:
        return scaled.sign()


_NORMS: dict[str, type[Norm]] = {norm.name: norm for norm in (RMSE, L2, Linf)}


def as_norm(norm: Norm | str, scale: Tensor | float | None = None) -> Norm:
    """A norm object from an object or one of the names ``"rmse"``, ``"l2"``, ``"linf"``.

    Args:
        norm: an object, which is returned as it is, or a name.
        scale: positive, broadcast to one image; sizes are then of ``delta / scale``. For names only.

    Returns:
        The norm.

    Raises:
        InvalidInputError: for an unknown name, or a ``scale`` beside a norm object (which carries its own).
    """
    if isinstance(norm, Norm):
        if scale is not None:
            raise InvalidInputError(f"scale: a norm object carries its own scale; pass {type(norm).__name__}(scale)")
        return norm
    if not isinstance(norm, str) or norm not in _NORMS:
        raise InvalidInputError(f"norm: expected one of {sorted(_NORMS)} or a Norm object, got {norm!r}")
    return _NORMS[norm](scale)
