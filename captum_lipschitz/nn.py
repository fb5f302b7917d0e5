"""The half-Huber ReLU, and putting it into an existing model."""

from __future__ import annotations

import ast
import inspect
import textwrap
import warnings
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, UnreachableActivationError

ModuleT = TypeVar("ModuleT", bound=nn.Module)

_RELU_NAMES = {"relu", "relu_"}
_RELU_FUNCTIONS = (F.relu, F.relu_, torch.relu, torch.relu_)
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

    Raises:
        InvalidInputError: a delta that is not positive.

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

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        # Networks saved by the paper's authors carry delta as a buffer of this name.
        delta = state_dict.pop(f"{prefix}d", None)
        if delta is not None:
            self.delta = float(delta)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def replace_activations(model: ModuleT, factory: Callable[[], nn.Module] = HalfHuberReLU) -> ModuleT:
    """Replace every ``nn.ReLU`` inside ``model``, in place, by what ``factory`` makes.

    A ReLU module that several places share stays shared. Nothing is replaced where a part of the model calls ``relu``
    as a function, because half a replacement would pass unnoticed; nor where the factory fails, or Ctrl-C comes.

    Other kinks (``nn.ReLU6``, ``nn.LeakyReLU``, subclasses of ``nn.ReLU``) stay as they are.

    Args:
        model: any module; a model that is itself an ``nn.ReLU`` has no place to put another one.
        factory: called without arguments, once for each distinct ReLU.

    Returns:
        The same ``model``.

    Raises:
        UnreachableActivationError: lists every submodule that calls ``F.relu``, ``torch.relu`` or ``Tensor.relu``.
            Give it an ``nn.ReLU`` submodule instead.
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
    found = [(p, child) for p, child in model.named_modules(remove_duplicate=False) if type(child) is nn.ReLU]
    made = {child: factory().train(child.training) for child in dict.fromkeys(child for _, child in found)}
    try:
        for path, child in found:
            model.set_submodule(path, made[child])
        return len(made)
    except BaseException:  # Ctrl-C too: all of them or none
        for path, child in found:
            model.set_submodule(path, child)
        raise


def _functional_relus(model: nn.Module) -> Iterator[str]:
    """Describe every place where ReLU is applied as a function rather than as an ``nn.ReLU``.

    A symbolic trace sees what a forward pass really calls, through helpers, aliases and partials alike. Where a model
    cannot be traced, because its forward pass depends on values, its source is read instead.
    """
    for path, module in model.named_modules():
        for name, value in vars(module).items():
            if any(value is function for function in _RELU_FUNCTIONS):
                yield f"{_where(path, module)}, attribute {name}"
    try:
        graph = fx.Tracer().trace(model)
    except Exception:  # noqa: BLE001 (tracing runs the model's own code on stand-ins, which may raise anything)
        yield from _relus_in_source(model)
    else:
        yield from _relus_in_graph(model, graph)


def _relus_in_graph(model: nn.Module, graph: fx.Graph) -> Iterator[str]:
    for node in graph.nodes:
        function = node.op == "call_function" and any(node.target is f for f in _RELU_FUNCTIONS)
        if function or (node.op == "call_method" and node.target in ("relu", "relu_")):
            path = [*node.meta.get("nn_module_stack", {"": ""})][-1]
            if isinstance(model.get_submodule(path), HalfHuberReLU):  # its own, which is where it should be
                continue
            call = f"calls {getattr(node.target, '__name__', node.target)}"
            yield f"{_where(path, model.get_submodule(path))}, {call} (traced as {node.name})"


def _relus_in_source(model: nn.Module) -> Iterator[str]:
    seen: dict[type, list[str]] = {}
    for path, module in model.named_modules():
        if isinstance(module, HalfHuberReLU):
            continue
        if type(module) not in seen:
            seen[type(module)] = _relu_calls(type(module))
        yield from (f"{_where(path, module)}, {call}" for call in seen[type(module)])


def _where(path: str, module: nn.Module) -> str:
    return f"{path or '(the model itself)'}: {type(module).__name__}"


def _relu_calls(kind: type) -> list[str]:
    """The relu calls in the code of a module class and its bases, torch's own classes excepted."""
    calls = []
    for base in kind.__mro__:
        if base.__module__.split(".")[0] == "torch" or base is object:
            continue
        for name, member in vars(base).items():
            function = inspect.unwrap(member.__func__ if isinstance(member, (staticmethod, classmethod)) else member)
            if name != "__init__" and inspect.isfunction(function):
                calls += [f"{function.__qualname__} calls {text}" for text in _relu_calls_in(function)]
    return calls


def _relu_calls_in(function: Callable[..., object]) -> list[str]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):  # built at run time: there is no source to read
        return []
    called = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    return [ast.unparse(func) for func in called if _is_relu(func)]


def _is_relu(func: ast.expr) -> bool:
    """``relu(x)``, ``F.relu(x)``, ``x.relu()``; but not ``self.relu(x)``, which is a submodule."""
    if isinstance(func, ast.Name):
        return func.id in _RELU_NAMES
    if not isinstance(func, ast.Attribute) or func.attr not in _RELU_NAMES:
        return False
    return ast.unparse(func.value).partition(".")[0] != "self"
