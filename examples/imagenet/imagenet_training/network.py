"""The network of a recipe: torchvision's, its activations half-Huber where asked, behind its normalisation."""

from __future__ import annotations

from pathlib import Path

import torch
import torchvision
from torch import nn

from captum_lipschitz import HalfHuberReLU, replace_activations
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.models import Normalised
from captum_lipschitz.measure.weights import load_weights, read_weights
from imagenet_training.recipe import Recipe


def build_network(recipe: Recipe, classes: int) -> Normalised:
    """A network of images in [0, 1], (N, 3, H, W), that returns logits (N, ``classes``); ``.model`` is torchvision's.

    Raises:
        InvalidInputError: torchvision has no such classifier, or the weights do not fit.
    """
    names = torchvision.models.list_models(module=torchvision.models)
    if recipe.model not in names:
        raise InvalidInputError(
            f"model: expected one of torchvision's classifiers, such as resnet50, got {recipe.model!r}"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        if recipe.weights == "torchvision":
            network = torchvision.models.get_model(recipe.model, weights="DEFAULT")
        else:
            network = torchvision.models.get_model(recipe.model, num_classes=classes, **_size(recipe))
        if recipe.weights not in (None, "torchvision"):
            load_weights(network, read_weights(Path(str(recipe.weights))), Path(str(recipe.weights)))
        _fit_head(network, classes)
    if recipe.activation == "half_huber" and not recipe.rounding_epochs:
        network = replace_activations(network, lambda: HalfHuberReLU(delta=recipe.delta))
    return Normalised(network, recipe.mean, recipe.std)


def _size(recipe: Recipe) -> dict[str, int]:
    """Of a ViT, whose positions belong to one resolution."""
    return {"image_size": recipe.resolution} if recipe.model.startswith("vit_") else {}


def _fit_head(network: nn.Module, classes: int) -> None:
    """A new last layer where the trained one has another number of classes."""
    layers = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)]
    if not layers:  # a convolutional head, as SqueezeNet's; load_weights has refused those that do not fit
        return
    name, head = layers[-1]
    if head.out_features != classes:
        parent, _, last = name.rpartition(".")
        setattr(network.get_submodule(parent), last, nn.Linear(head.in_features, classes))
