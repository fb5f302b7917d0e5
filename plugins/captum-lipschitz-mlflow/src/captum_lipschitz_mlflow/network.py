"""The torch module within what MLflow hands to an evaluator."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule

from captum_lipschitz._model import device_of
from captum_lipschitz._trace import no_trace, settled
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


def check_first_pass(network: nn.Module, images: Tensor, *, shaped: bool) -> None:
    """Try two images, where a network may refuse them only because of how it was exported or how the data came.

    Args:
        network: in any mode; left as it was.
        images: (N, ...), as the measurement gives them.
        shaped: whether their shape was told, by the settings or a signature.

    Raises:
        InvalidInputError: the network takes one image but not two, or fails on data whose shape nobody told.
    """
    exported = isinstance(network, GraphModule)
    if not len(images) or (shaped and not exported):
        return
    two = images[:1].repeat(2, *[1] * (images.dim() - 1))
    error = _failure(network, two)
    if error is None:
        return
    if exported and _failure(network, two[:1]) is None:
        raise InvalidInputError(
            "model: expected a network exported for batches of any size, got one that takes one image and fails on two "
            f"({_told(error)}); log it again with an input_example of at least two images"
        ) from error
    if not shaped:
        raise InvalidInputError(
            f"data: expected inputs that the network takes, got ones of shape {tuple(images.shape[1:])}, on which it "
            f"fails ({_told(error)}); the model's signature tells no shape: set input_shape in evaluator_config, as "
            "[3, 32, 32]"
        ) from error


def _failure(network: nn.Module, images: Tensor) -> Exception | None:
    images = images.to(device_of(network))
    try:
        with settled(), no_trace(network, images), torch.no_grad():
            network(images)
    except Exception as error:  # noqa: BLE001  whatever the network's own code raises
        return error
    return None


def _told(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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
