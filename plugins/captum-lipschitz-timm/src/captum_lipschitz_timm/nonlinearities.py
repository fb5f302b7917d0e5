"""What a network computes between its linear parts: the non-linear functions that one forward pass shows.

Functions are recognised by PyTorch's name, see ``Nonlinearity.nature``. What is put together from comparisons has no
name of its own and is not seen: ``torch.where(x > 0, x, 0.1 * x)``, ``x * (x > 0)``, ``masked_fill``, and clamping to
bounds that are tensors. Functions of integers and of a parameter alone do not count: they have no derivative with
respect to the images.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

Nature: TypeAlias = Literal["kinked", "smooth", "pooling"]

_KINKED = {
    *("relu", "relu6", "hardtanh", "leaky_relu", "threshold", "prelu", "_prelu_kernel", "rrelu", "rrelu_with_noise"),
    *("hardswish", "hardsigmoid", "hardshrink", "softshrink", "maximum", "minimum", "abs"),
}
_SMOOTH = {"sigmoid", "tanh", "silu", "gelu", "mish", "softplus", "log_sigmoid_forward", "erf"}
_POOLING = {
    *("max_pool1d", "max_pool2d", "max_pool3d", "adaptive_max_pool2d", "adaptive_max_pool3d"),
    *("amax", "amin", "max", "min"),  # over a dimension, or over all; of two tensors they are maximum and minimum
}
_CLAMPS = {"clamp", "clamp_min", "clamp_max", "clip"}
_GUARD = 1e-3
"""The largest least value of a clamp that guards a division or a root, and is no activation."""
_ROUNDING = 1e-6


class Nonlinearity(NamedTuple):
    """One non-linear function of a forward pass.

    Attributes:
        path: of the innermost submodule that was running; empty for the model itself.
        function: PyTorch's name of it, ``"relu"``.
        nature: ``"kinked"``, its derivative jumps: ReLU, ReLU6, hardtanh, leaky ReLU, threshold, PReLU, RReLU,
            Hardswish, hard sigmoid, hard- and softshrink, SELU and other ELUs of a slope other than 1, ``abs``,
            ``maximum`` and ``minimum`` of two tensors, ``clamp`` to numbers (unless it has only a least value, above 0
            and at most 0.001, which guards a division). ``"pooling"``: max pooling and ``amax``, ``amin``, ``max``,
            ``min``, whose derivatives jump as well. ``"smooth"``: sigmoid, tanh, SiLU, GELU, Mish, softplus, erf, ELU.
    """

    path: str
    function: str
    nature: Nature


def nonlinearities(model: nn.Module, input_size: Sequence[int]) -> list[Nonlinearity]:
    """Run a copy of ``model`` without data, in evaluation mode, and note each function that is recognised, in order.

    So calls of ``F.relu`` or ``Tensor.clamp(min=0)`` are seen as well as modules. The copy has no memory for its
    parameters (PyTorch's meta device), costs next to nothing at any size, and the model itself is not touched.

    Args:
        model: takes images, (N, C, H, W).
        input_size: of one image, (C, H, W).

    Raises:
        Exception: what the model raises where it cannot be run so.
    """
    shadow = _without_data(model).eval()
    dtype = next((p.dtype for p in shadow.parameters() if p.is_floating_point()), torch.get_default_dtype())
    recorder = _Recorder(shadow)
    for path, module in shadow.named_modules():
        recorder.follow(path, module)
    with torch.no_grad(), recorder:
        shadow(torch.empty(2, *input_size, device="meta", dtype=dtype))
    return recorder.seen


def _without_data(model: nn.Module) -> nn.Module:
    """A copy of the modules, whose tensors have shapes and types only."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        held = (*module._parameters.values(), *module._buffers.values(), *vars(module).values())  # noqa: SLF001
        for tensor in held:
            if isinstance(tensor, nn.Parameter):
                memo[id(tensor)] = nn.Parameter(tensor.detach().to("meta"), requires_grad=False)
            elif isinstance(tensor, Tensor):
                memo[id(tensor)] = tensor.detach().to("meta")
    return copy.deepcopy(model, memo)


class _Recorder(TorchDispatchMode):
    def __init__(self, shadow: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.seen: list[Nonlinearity] = []
        self._running: list[str] = []
        self._weights = {_memory(parameter) for parameter in shadow.parameters()}

    def follow(self, path: str, module: nn.Module) -> None:
        module.register_forward_pre_hook(lambda *_: self._running.append(path))
        module.register_forward_hook(lambda *_: self._leave())

    def _leave(self) -> None:
        self._running.pop()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        function = name.removesuffix("_").removesuffix("_with_indices")
        nature = _nature(function, args, kwargs or {}) if self._counts(args) else None
        if nature is not None:
            self.seen.append(Nonlinearity(self._running[-1] if self._running else "", function, nature))
        return func(*args, **(kwargs or {}))

    def _counts(self, args: Sequence[Any]) -> bool:
        """Whether what is computed may depend on the images, and has a derivative."""
        first = args[0] if args else None
        return isinstance(first, Tensor) and first.is_floating_point() and _memory(first) not in self._weights


def _memory(tensor: Tensor) -> int:
    """What a tensor has in common with its views; without data there is no address."""
    return int(tensor.untyped_storage()._cdata)  # noqa: SLF001


def _nature(function: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> Nature | None:
    if function in _CLAMPS:
        return "kinked" if _clamps(function, args, keywords) else None
    if function == "elu":  # its slope just left of 0 is this product times the one on the right
        alpha, _, input_scale = [*args[1:4], 1.0, 1.0, 1.0][:3]
        return "smooth" if abs(alpha * input_scale - 1) < _ROUNDING else "kinked"
    if function in _KINKED:
        return "kinked"
    if function in _POOLING:
        return "pooling"
    return "smooth" if function in _SMOOTH else None


def _clamps(function: str, args: Sequence[Any], keywords: Mapping[str, Any]) -> bool:
    """Whether a clamp has numbers as bounds and is more than the guard of a division."""
    names = ("max",) if function == "clamp_max" else ("min", "max")
    bounds = {**dict(zip(names, args[1:], strict=False)), **keywords}
    numbers = {name: value for name, value in bounds.items() if isinstance(value, (int, float))}
    return bool(numbers) and not (set(numbers) == {"min"} and 0 < numbers["min"] <= _GUARD)
