"""CIFAR-10 in memory, from whichever form of it is at hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, MissingDependencyError
from captum_lipschitz.measure.arrays import read_array
from cifar10_training.files import archived_pictures, decoded, pictures_below

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
ARCHIVE, SUBSET = "cifar10_jpeg.tar.xz", "cifar10_subset.npz"
_SIDE = 32
_MOST = 100_000  # images in an array of the subset; all of CIFAR-10 has 60,000


@dataclass(frozen=True)
class Part:
    """Images with their labels.

    Attributes:
        images: (N, 3, 32, 32) uint8, RGB.
        labels: (N,) int64, indices into ``CLASSES``.
    """

    images: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: slice | Tensor) -> Part:
        return Part(self.images[rows], self.labels[rows])

    def to(self, device: torch.device | str) -> Part:
        """The same on another device."""
        return Part(self.images.to(device), self.labels.to(device))

    def digest(self) -> str:
        """The beginning of the sha256 of images and labels."""
        found = hashlib.sha256(self.images.cpu().numpy().tobytes())
        found.update(self.labels.cpu().numpy().tobytes())
        return found.hexdigest()[:16]

    def inputs(self) -> Tensor:
        """What a network takes: (N, 3, 32, 32) float32 in [0, 1]."""
        return self.images.float() / 255


@dataclass(frozen=True)
class Images:
    """The three parts of an experiment.

    Attributes:
        train: what is trained on.
        held_out: training images that no network sees: settings are chosen, and temperatures fitted, on them.
        test: measured once, at the end.
    """

    train: Part
    held_out: Part
    test: Part

    def digests(self) -> dict[str, str]:
        """What tells one set of images from another: the beginning of each part's sha256."""
        return {name: part.digest() for name, part in vars(self).items()}

    def to(self, device: torch.device | str) -> Images:
        """All parts on another device."""
        return Images(self.train.to(device), self.held_out.to(device), self.test.to(device))


def load_images(folder: Path, *, held_out: int | None = None) -> Images:
    """Read CIFAR-10 from a folder, in the first of these forms that it holds.

    - ``cifar-10-batches-py/``, as torchvision keeps it (torchvision checks the files' sums before it reads them);
    - ``train/CLASS/*`` and ``test/CLASS/*``, pictures in class folders: in the order of their names, classes in turns;
    - ``cifar10_jpeg.tar.xz``, an archive of such folders, tested on the pixel-exact ``cifar10_subset.npz`` beside it;
    - ``cifar10_subset.npz`` alone: ``train_images``, ``train_labels``, ``test_images``, ``test_labels``.

    Args:
        folder: holds one of them.
        held_out: how many training images to set aside, as many of each class, the last ones of each; ``None`` for a
            tenth: 5,000 of all of CIFAR-10.

    Raises:
        InvalidInputError: it holds none, or one that cannot be used.
    """
    if (folder / "cifar-10-batches-py").is_dir():
        train, test = (_torchvision(folder, train=train) for train in (True, False))
    elif (folder / "train").is_dir():
        train, test = (_pictures(pictures_below(folder / part), folder / part) for part in ("train", "test"))
    elif (folder / ARCHIVE).is_file():
        train, test = _archived(folder)
    elif (folder / SUBSET).is_file():
        train, test = (_array(folder / SUBSET, part) for part in ("train", "test"))
    else:
        raise InvalidInputError(
            f"data: expected cifar-10-batches-py/, train/ and test/, {ARCHIVE} or {SUBSET} in {folder}, got none"
        )
    kept, aside = _split(train, len(train) // 100 * 10 if held_out is None else held_out)
    return Images(kept, aside, test)


def synthetic_images(train: int = 512, held_out: int = 64, test: int = 64, *, seed: int = 0) -> Images:
    """Noise around a pattern of each class: for trying scripts out where there are no data.

    Args:
        train: how many images to train on.
        held_out: likewise.
        test: likewise.
        seed: of all of them.
    """
    generator = torch.Generator().manual_seed(seed)
    patterns = torch.rand(len(CLASSES), 3, _SIDE, _SIDE, generator=generator)

    def part(count: int) -> Part:
        labels = torch.randint(len(CLASSES), (count,), generator=generator)
        noise = torch.rand(count, 3, _SIDE, _SIDE, generator=generator)
        return Part((127 * (patterns[labels] + noise)).byte(), labels)

    return Images(part(train), part(held_out), part(test))


def _split(train: Part, held_out: int) -> tuple[Part, Part]:
    """The last images of each class apart from the others, in their order."""
    each, rest = divmod(held_out, len(CLASSES))
    if held_out < 0 or rest or each >= int(train.labels.bincount(minlength=len(CLASSES)).min()):
        raise InvalidInputError(
            f"held_out: expected a multiple of {len(CLASSES)} that leaves images of each class, got {held_out}"
        )
    aside = torch.zeros(len(train), dtype=torch.bool)
    for label in range(len(CLASSES)):
        rows = (train.labels == label).nonzero().squeeze(1)
        aside[rows[len(rows) - each :]] = True
    return train[~aside], train[aside]


def _torchvision(folder: Path, *, train: bool) -> Part:
    try:
        from torchvision.datasets import CIFAR10
    except ImportError as error:
        raise MissingDependencyError(
            f'data: torchvision cannot be imported ({error}); install it with: pip install "captum-lipschitz[vision]"'
        ) from error
    try:
        data = CIFAR10(str(folder), train=train, download=False)
    except RuntimeError as error:
        raise InvalidInputError(f"data: {folder / 'cifar-10-batches-py'} is damaged or incomplete: {error}") from error
    return Part(torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(data.targets))


def _archived(folder: Path) -> tuple[Part, Part]:
    path = folder / ARCHIVE
    found = archived_pictures(path)
    train = _pictures(found["train"], path)
    if (folder / SUBSET).is_file():
        return train, _array(folder / SUBSET, "test")
    return train, _pictures(found["test"], path)


def _pictures(files: Iterable[tuple[str, BinaryIO]], source: Path) -> Part:
    """Decode pictures that are named ``CLASS/...``."""
    images, labels = [], []
    for name, stream in files:
        label = name.partition("/")[0]
        if label not in CLASSES:
            raise InvalidInputError(f"data: expected folders named {', '.join(CLASSES)} in {source}, got {label!r}")
        images.append(decoded(stream, f"{source}: {name}", side=_SIDE))
        labels.append(CLASSES.index(label))
    if not images:
        raise InvalidInputError(f"data: expected pictures in {source}, got none")
    part = Part(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels))
    return part[_in_turns(part.labels)]


def _in_turns(labels: Tensor) -> Tensor:
    """An order in which the classes take turns, so that the first images are some of each."""
    places = torch.zeros_like(labels)
    for label in labels.unique():
        rows = labels == label
        places[rows] = torch.arange(int(rows.sum()))
    return (places * len(CLASSES) + labels).argsort()


def _array(path: Path, part: str) -> Part:
    images, labels = (
        torch.from_numpy(read_array(path, f"{part}_{kind}", most=most))
        for kind, most in (("images", _MOST * 3 * _SIDE**2), ("labels", _MOST * 8))
    )
    if images.dtype != torch.uint8 or images.shape[1:] != (3, _SIDE, _SIDE) or labels.shape != images.shape[:1]:
        raise InvalidInputError(f"data: expected (N, 3, 32, 32) uint8 and (N,) labels in {path}, got {images.shape}")
    whole = not (labels.is_floating_point() or labels.is_complex()) and len(labels) > 0
    if not whole or int(labels.min()) < 0 or int(labels.max()) >= len(CLASSES):
        raise InvalidInputError(f"data: expected whole numbers in 0..{len(CLASSES) - 1} as labels in {path}")
    return Part(images, labels.long())
