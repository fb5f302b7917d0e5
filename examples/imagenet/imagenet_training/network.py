"""The network of a recipe: torchvision's, its activations half-Huber where asked, behind its normalisation."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import Tensor, distributed, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from captum_lipschitz import HalfHuberReLU, replace_activations
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.models import Normalised
from captum_lipschitz.measure.weights import load_weights, read_weights, without_prefix
from imagenet_training.recipe import Recipe

# Their auxiliary classifiers would make a second and third output in training. ``transform_input``, as their published
# weights expect it, is a change of scale that nothing else minds.
_INCEPTIONS = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_FORCE = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"  # torch.load's
_POSITIONS = "encoder.pos_embedding"


def build_network(recipe: Recipe, classes: int) -> Normalised:
    """A network of images in [0, 1], (N, 3, H, W), that returns logits (N, ``classes``); ``.model`` is torchvision's.

    Weights that ``recipe`` starts from may be of another number of classes, and a ViT's of another resolution: then
    the last layer starts at random, and the positions are interpolated. The first process says so.

    Raises:
        InvalidInputError: torchvision has no such classifier, it cannot have this resolution, or the weights do not
            fit.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if recipe.model not in names:
        raise InvalidInputError(
            f"model: expected one of torchvision's classifiers, such as resnet50, got {recipe.model!r}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        network = _untrained(recipe, classes)
        if recipe.weights is not None:
            _start_from(network, recipe)
    if recipe.activation == "half_huber" and not recipe.rounding_epochs:
        network = replace_activations(network, lambda: HalfHuberReLU(delta=recipe.delta))
    return Normalised(network, recipe.mean, recipe.std)


def _untrained(recipe: Recipe, classes: int) -> nn.Module:
    side, options = recipe.resolution, dict[str, Any]()
    if recipe.model in _INCEPTIONS:
        options = {"aux_logits": False, "transform_input": True, "init_weights": recipe.weights is None}
    elif recipe.model.startswith("vit_"):  # its positions belong to one resolution
        options = {"image_size": side}
    elif recipe.model.startswith("maxvit_"):
        options = {"input_size": (side, side)}
    try:
        network: nn.Module = torchvision.models.get_model(recipe.model, num_classes=classes, **options)
    except (AssertionError, ValueError) as error:
        raise InvalidInputError(
            f"resolution: expected one that {recipe.model} can have, such as 224, got {side} ({error})"
        ) from error
    return network


def _start_from(network: nn.Module, recipe: Recipe) -> None:
    """Put the trained weights in, but for a last layer of another number of classes."""
    if recipe.weights == "torchvision":
        source = Path(f"torchvision:{recipe.model}")
        with _tensors_only():
            state: dict[str, Tensor] = torchvision.models.get_model(recipe.model, weights="DEFAULT").state_dict()
    else:
        source = Path(str(recipe.weights))
        state = without_prefix(read_weights(source), set(network.state_dict()))
    state = {name: t for name, t in state.items() if not name.startswith(_INCEPTIONS.get(recipe.model, ("\0",)))}
    state |= _interpolated_positions(network, state) | _own_head(network, state)
    load_weights(network, state, source)


@contextmanager
def _tensors_only() -> Iterator[None]:
    """Torchvision reads what it downloaded as a pickle, and takes no argument that would forbid it."""
    before = os.environ.get(_FORCE)
    os.environ[_FORCE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE]
        else:
            os.environ[_FORCE] = before


def _own_head(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The network's last layer under its names where the trained one differs in nothing but the number of classes."""
    name, head = [(name, part) for name, part in network.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)][-1]
    trained = state.get(f"{name}.weight", head.weight)
    if len(trained) == len(head.weight) or trained.shape[1:] != head.weight.shape[1:]:
        return {}  # it fits, or load_weights says what does not
    _say(f"weights: {len(trained)} classes, and the data have {len(head.weight)}: the last layer, {name}, starts anew")
    return {f"{name}.{part}": tensor for part, tensor in head.state_dict().items()}


def _interpolated_positions(network: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A ViT's positions at the network's resolution where the trained ones are of another."""
    own, trained = network.state_dict().get(_POSITIONS), state.get(_POSITIONS)
    if own is None or trained is None or own.shape[1] == trained.shape[1]:
        return {}
    try:
        found = interpolate_embeddings(network.image_size, network.patch_size, {_POSITIONS: trained.float()})
    except ValueError as error:
        raise InvalidInputError(f"weights: {_POSITIONS} cannot be brought to the resolution ({error})") from error
    _say(f"weights: positions of {trained.shape[1] - 1} patches, interpolated to {own.shape[1] - 1}")
    return dict(found)


def _say(text: str) -> None:
    if not distributed.is_initialized() or distributed.get_rank() == 0:
        sys.stdout.write(text + "\n")
