"""The networks and images that attacks are compared on: real ones, read from a folder of data."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor, nn

from captum_lipschitz.models import PreActResNet44

_CROP, _SHORT_SIDE = 227, 256


@dataclass(frozen=True)
class Task:
    """One network with images and their labels.

    Attributes:
        network: its name, a key of ``NETWORKS``.
        model: in evaluation mode; maps RGB images in [0, 1], (N, 3, H, W), to logits (N, C).
        images: (N, 3, H, W).
        labels: (N,).
        published: by criterion, the distances in RMSE, (N,), that the network's authors published for these images.
    """

    network: str
    model: nn.Module
    images: Tensor
    labels: Tensor
    published: dict[str, Tensor] = field(default_factory=dict)


def load(folder: Path, network: str, *, first: int, count: int) -> Task:
    """Read a network and ``count`` images from the ``first`` on.

    Args:
        folder: holds ``cifar10_subset.npz``, ``authors-cifar10/`` and ``imagenet/``.
        network: a key of ``NETWORKS``.
        first: index of the first image.
        count: of images, fewer where the data end.
    """
    return NETWORKS[network](folder, slice(first, first + count))


def _robust(folder: Path, chosen: slice) -> Task:
    task = _cifar(folder, "robust", chosen)
    text = (folder / "authors-cifar10" / "distances-robust-64.json").read_text(encoding="utf-8")
    published = {key: torch.tensor(values, dtype=torch.float64)[chosen] for key, values in json.loads(text).items()}
    if len(published["attack"]) != len(task.images):
        return task
    by_criterion = {"misclassified": published["attack"], "below_chance": published["btr"]}
    return Task(task.network, task.model, task.images, task.labels, by_criterion)


def _standard(folder: Path, chosen: slice) -> Task:
    return _cifar(folder, "standard", chosen)


def _cifar(folder: Path, network: str, chosen: slice) -> Task:
    """A CIFAR-10 network of the paper's authors, and test images."""
    with np.load(folder / "cifar10_subset.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["test_images"][chosen]) / 255
        labels = torch.from_numpy(arrays["test_labels"][chosen]).long()
    model = PreActResNet44.from_safetensors(folder / "authors-cifar10" / f"resnet44-{network}.safetensors")
    return Task(network, model, images, labels)


def _squeezenet(folder: Path, chosen: slice) -> Task:
    """SqueezeNet 1.0 and ImageNet images, one of each of 200 classes, in the order of the classes' identifiers."""
    folder = folder / "imagenet"
    model = import_module("torchvision.models").squeezenet1_0(weights=None)
    weights = load_file(folder / "squeezenet1_0-fp16.safetensors")
    model.load_state_dict({name: tensor.float() for name, tensor in weights.items()})
    index = json.loads((folder / "classes.json").read_text(encoding="utf-8"))
    files = sorted((folder / "val").glob("*/*.jpg"), key=lambda path: (path.parent.name, path.name))[chosen]
    labels = torch.tensor([index[path.parent.name][0] for path in files])
    return Task("squeezenet", model.eval(), torch.stack([_cropped(path) for path in files]), labels)


def _cropped(path: Path) -> Tensor:
    """The centre of an image whose short side was brought to 256 pixels, (3, 227, 227) in [0, 1]."""
    with Image.open(path, formats=("JPEG", "PNG")) as file:
        picture = file.convert("RGB")
    width, height = picture.size
    if min(width, height) != _SHORT_SIDE:
        share = _SHORT_SIDE / min(width, height)
        width, height = round(share * width), round(share * height)
        picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    left, top = (width - _CROP) // 2, (height - _CROP) // 2
    pixels = np.asarray(picture.crop((left, top, left + _CROP, top + _CROP)))
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1) / 255


NETWORKS: dict[str, Callable[[Path, slice], Task]] = {
    "robust": _robust,
    "standard": _standard,
    "squeezenet": _squeezenet,
}
