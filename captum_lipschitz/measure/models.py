"""Models by name: torchvision's, or what a callable of the user's makes."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, MissingDependencyError
from captum_lipschitz.measure.weights import load_weights, read_weights, without_prefix

TORCHVISION = "torchvision"
_TRANSFORMING = ("inception_v3", "googlenet")  # whose published weights expect torchvision to transform the images
_AUXILIARY = ("aux", "AuxLogits")


class Normalised(nn.Module):
    """A model behind ``(images - mean) / std``, so that perturbations are measured on images in [0, 1].

    Args:
        model: a module or function, of normalised images (N, C, H, W).
        mean: one value per channel or one for all, in units of [0, 1].
        std: likewise, positive.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Model, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, -1, 1, 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.model((images - self.mean) / self.std)


def load_model(
    spec: str,
    *,
    weights: Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    device: torch.device | str = "cpu",
) -> Model:
    """A model in evaluation mode, its parameters without gradient.

    Args:
        spec: ``"torchvision:NAME"``, one of torchvision's classifiers, with as many classes as the weights have
            (inception_v3 and googlenet with ``transform_input``, as their published weights expect); or
            ``"package.module:callable"``, called without arguments to make a module or a function of images. The
            current folder is importable.
        weights: see ``read_weights``; torchvision's models need one, as nothing is downloaded.
        mean: with ``std``, a normalisation to put in front, in units of [0, 1].
        std: see ``mean``.
        device: where a module is moved.

    Raises:
        InvalidInputError, InvalidTypeError: for a name or weights that cannot be used.
        MissingDependencyError: torchvision is asked for and not installed.
    """
    source, separator, name = spec.partition(":")
    if not separator or not source or not name:
        raise InvalidInputError(f"model: expected torchvision:NAME or package.module:callable, got {spec!r}")
    state = None if weights is None else read_weights(weights)
    model = _torchvision_model(name, state) if source == TORCHVISION else _made_by(source, name)
    if state is not None and weights is not None:
        load_weights(model, state, weights)
    if mean is not None and std is not None:
        model = Normalised(model, mean, std)
    if isinstance(model, nn.Module):
        model = model.eval().requires_grad_(requires_grad=False).to(device)
    return model


def _torchvision_model(name: str, state: Mapping[str, Tensor] | None) -> nn.Module:
    models = _torchvision().models
    names = models.list_models(module=models)
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3) or names
        raise InvalidInputError(f"model: expected one of torchvision's classifiers, such as {close}, got {name!r}")
    if state is None:
        raise InvalidInputError(
            f"weights: expected a file for torchvision:{name}, whose weights would be random, and nothing is "
            f"downloaded here. Save torchvision's own with: python -c \"import torch, torchvision; torch.save("
            f"torchvision.models.get_model('{name}', weights='DEFAULT').state_dict(), '{name}.pt')\""
        )
    options: dict[str, Any] = {}
    if name in _TRANSFORMING:
        auxiliary = any(part.startswith(_AUXILIARY) for key in state for part in key.split("."))
        options = {"transform_input": True, "aux_logits": auxiliary, "init_weights": False}
    model: nn.Module = models.get_model(name, weights=None, **options)
    classes = _other_classes(model, without_prefix(state, set(model.state_dict())))
    return model if classes is None else models.get_model(name, weights=None, num_classes=classes, **options)


def _other_classes(model: nn.Module, state: Mapping[str, Tensor]) -> int | None:
    """The number of classes of weights that differ from the model's in the head alone; ``None`` where none do."""
    own = model.state_dict()
    differing = [key for key, tensor in own.items() if key in state and state[key].shape != tensor.shape]
    if any(state[key].dim() == 0 or state[key].shape[1:] != own[key].shape[1:] for key in differing):
        return None
    classes = {len(state[key]) for key in differing}
    return classes.pop() if len(classes) == 1 else None


def _torchvision() -> ModuleType:
    try:
        import torchvision
    except ImportError as error:
        raise MissingDependencyError(
            f'model: torchvision cannot be imported ({error}); install it with: pip install "captum-lipschitz[vision]"'
        ) from error
    module: ModuleType = torchvision
    return module


def named_object(source: str, name: str) -> Any:
    """The object ``name`` of the module ``source``."""
    here = os.getcwd()  # noqa: PTH109 (sys.path holds strings)
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        target: Any = import_module(source)
    except ImportError as error:
        raise InvalidInputError(f"model: the module {source!r} cannot be imported ({error})") from error
    for part in name.split("."):
        if not hasattr(target, part):
            raise InvalidInputError(f"model: {source!r} has no {name!r}")
        target = getattr(target, part)
    return target


def _made_by(source: str, name: str) -> Model:
    """What the callable ``name`` of the module ``source`` returns."""
    target = named_object(source, name)
    if not callable(target):
        raise InvalidTypeError(f"model: expected {source}:{name} to be callable, got {type(target).__name__}")
    model = target if isinstance(target, nn.Module) else _called(target, f"{source}:{name}")
    if isinstance(model, type) or not callable(model):
        raise InvalidTypeError(
            f"model: expected {source}:{name} to return a module or a function of images, got {type(model).__name__}"
        )
    made: Model = model
    return made


def _called(make: Callable[[], Any], spec: str) -> Any:
    try:
        return make()
    except Exception as error:
        raise InvalidInputError(f"model: calling {spec} without arguments failed: {error!r}") from error
