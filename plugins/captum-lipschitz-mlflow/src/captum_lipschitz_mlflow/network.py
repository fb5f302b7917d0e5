"""The torch module within what MLflow hands to an evaluator."""

from __future__ import annotations

from typing import Any

from torch import nn
from torch.fx import GraphModule

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

_INSTEAD = (
    "log the network with mlflow.pytorch.log_model and evaluate that, or call "
    "captum_lipschitz_mlflow.measure_ara(module, images, labels), which takes the module itself"
)


def network_of(model: Any) -> nn.Module:
    """The module of a model that was logged with ``mlflow.pytorch``, on the device that MLflow loaded it to.

    Args:
        model: what ``ModelEvaluator.evaluate`` gets: a ``PyFuncModel``, a wrapped function or endpoint, or ``None``.

    Raises:
        InvalidTypeError: there is no module within, so no gradient.
        InvalidInputError: a network that was exported in training mode, which cannot be switched any more.
    """
    try:
        raw = model.get_raw_model()
    except (AttributeError, NotImplementedError):
        raw = None
    if not isinstance(raw, nn.Module):
        came = "no model (predictions alone)" if model is None else _described(model, raw)
        raise InvalidTypeError(
            f"model: expected one of the flavor mlflow.pytorch, whose gradients are needed, got {came}; {_INSTEAD}"
        )
    frozen = _in_training_mode(raw)
    if frozen:
        raise InvalidInputError(
            f"model: expected a network exported in evaluation mode, got one with {frozen} in training mode; call "
            "model.eval() before mlflow.pytorch.log_model"
        )
    return raw


def _described(model: Any, raw: Any) -> str:
    module = getattr(model, "loader_module", None)
    if raw is not None:
        return f"{type(raw).__name__} (of {module})"
    return "a function, a served model or an own PythonModel" if module is None else f"a model of {module}"


def _in_training_mode(network: nn.Module) -> list[str]:
    """Operations of an exported graph that are fixed in training mode; a graph has no ``eval()``."""
    if not isinstance(network, GraphModule):
        return []
    found = set()
    for node in network.graph.nodes:
        arguments = getattr(getattr(node.target, "_schema", None), "arguments", ())
        given = dict(zip((argument.name for argument in arguments), node.args, strict=False), **node.kwargs)
        if given.get("train") is True or given.get("training") is True:
            found.add(str(node.target).split(".")[1])
    return sorted(found)
