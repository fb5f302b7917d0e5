"""The half-Huber ReLU, and putting it into an existing model."""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, UnreachableActivationError

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_RELU_FUNCTIONS = {"relu", "relu_", "relu6"}
_INSTANCE_NORMS = (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
_NORMALISATIONS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    *_INSTANCE_NORMS,
    nn.GroupNorm,
    nn.LayerNorm,
    nn.RMSNorm,
    nn.LocalResponseNorm,
)


class HalfHuberReLU(nn.Module):
    """A ReLU with a continuous derivative: 0 below 0, a parabola on [0, delta], slope 1 above.

    ``c = clamp(x, 0, delta)``, ``h(x) = c * (x - c / 2) / delta``, ``h'(x) = c / delta``. A penalty on the input
    gradient can be learnt through it, as it cannot through ReLU's jump. Near zero it is quadratic, so a network without
    normalisation layers and with default initialisation collapses to a constant: normalise, or initialise for it.

    Args:
        delta: where the parabola ends, positive. The paper uses 0.5.

    Shape:
        any to the same.

    Example:
        >>> HalfHuberReLU(0.5)(torch.tensor([-1.0, 0.25, 0.5, 1.0]))
        tensor([0.0000, 0.0625, 0.2500, 0.7500])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods ("half-Huber ReLU").
    """

    def __init__(self, delta: float = 0.5) -> None:
        super().__init__()
        if not delta > 0:
            raise InvalidInputError(f"delta: expected a positive value, got {delta}")
        self.delta = float(delta)

    def forward(self, inputs: Tensor) -> Tensor:
        # A composition of torch's own functions: a custom autograd.Function loses its second derivative when compiled.
        active = F.relu(inputs)
        return F.huber_loss(active, torch.zeros_like(active), reduction="none", delta=self.delta) / self.delta

    def extra_repr(self) -> str:
        return f"delta={self.delta}"


def replace_activations(model: ModuleT, factory: Callable[[], nn.Module] = HalfHuberReLU) -> ModuleT:
    """Replace every ``nn.ReLU`` inside ``model``, in place, by what ``factory`` makes.

    A ReLU module that several places share stays shared. Nothing is replaced where a part of the model calls ``relu``
    as a function, because half a replacement would pass unnoticed.

    Args:
        model: any module; a model that is itself an ``nn.ReLU`` has no place to put another one.
        factory: called without arguments, once for each distinct ReLU.

    Returns:
        The same ``model``.

    Raises:
        UnreachableActivationError: lists every submodule that calls ``F.relu``, ``torch.relu`` or ``Tensor.relu`` in
            its own code. Give it an ``nn.ReLU`` submodule instead, or write the activation as one.
        InvalidInputError: the model itself is an ``nn.ReLU``.

    Warns:
        CaptumLipschitzWarning: there was no ReLU to replace, or the model has no normalisation layer, without which
            half-Huber networks collapse under default initialisation.

    Example:
        >>> replace_activations(torch.nn.Sequential(torch.nn.BatchNorm1d(3), torch.nn.ReLU()))[1]
        HalfHuberReLU(delta=0.5)
    """
    if isinstance(model, nn.ReLU):
        raise InvalidInputError("model: expected a module that contains ReLUs, got an nn.ReLU itself")
    unreachable = list(_functional_relus(model))
    if unreachable:
        listing = "\n".join(f"  {line}" for line in unreachable)
        raise UnreachableActivationError(
            f"model: {type(model).__name__} applies ReLU in code that replacing submodules cannot reach:\n{listing}\n"
            "Nothing was replaced. Rewrite these calls as nn.ReLU submodules first."
        )
    replaced = _replace_modules(model, factory)
    if not replaced:
        warnings.warn(
            f"replace_activations: {type(model).__name__} has no nn.ReLU; nothing was replaced",
            CaptumLipschitzWarning,
            stacklevel=2,
        )
    elif not any(isinstance(module, _NORMALISATIONS) for module in model.modules()):
        warnings.warn(
            f"replace_activations: {type(model).__name__} has no normalisation layer; with default initialisation a "
            "half-Huber network then shrinks its signals to a constant. Normalise, or initialise for it.",
            CaptumLipschitzWarning,
            stacklevel=2,
        )
    return model


def _replace_modules(model: nn.Module, factory: Callable[[], nn.Module]) -> int:
    made: dict[nn.Module, nn.Module] = {}
    for path, child in list(model.named_modules(remove_duplicate=False)):
        if type(child) is nn.ReLU:
            if child not in made:
                made[child] = factory().train(child.training)
            model.set_submodule(path, made[child])
    return len(made)


def _functional_relus(model: nn.Module) -> Iterator[str]:
    """Describe every place where a submodule applies ReLU as a function rather than as an ``nn.ReLU``."""
    seen: dict[type, list[str]] = {}
    for path, module in model.named_modules():
        where = f"{path or '(the model itself)'}: {type(module).__name__}"
        for name, value in vars(module).items():
            if value in (F.relu, torch.relu, F.relu_, F.relu6) if callable(value) else False:
                yield f"{where}, attribute {name}"
        if type(module) not in seen:
            seen[type(module)] = _relu_calls(type(module))
        for call in seen[type(module)]:
            yield f"{where}, {call}"


def _relu_calls(kind: type) -> list[str]:
    """The relu calls in the code of a module class and its bases, torch's own classes excepted."""
    calls = []
    for base in kind.__mro__:
        if base.__module__.split(".")[0] == "torch" or base is object:
            continue
        for name, member in vars(base).items():
            function = inspect.unwrap(member.__func__ if isinstance(member, (staticmethod, classmethod)) else member)
            if name == "__init__" or not inspect.isfunction(function):
                continue
            calls += [f"{base.__name__}.{name} calls {text}" for text in _relu_calls_in(function)]
    return calls


def _relu_calls_in(function: Callable[..., object]) -> list[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # built at run time: there is no source to read
        return []
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [ast.unparse(func) for func in called if _is_relu(func)]


def _is_relu(func: ast.expr) -> bool:
    if isinstance(func, ast.Name):
        return func.id in _RELU_FUNCTIONS
    if not isinstance(func, ast.Attribute) or func.attr not in _RELU_FUNCTIONS:
        return False
    # self.relu(x) is a submodule of that name, reached by its attribute; F.relu, torch.relu and x.relu() are not.
    return not (isinstance(func.value, ast.Name) and func.value.id == "self")
