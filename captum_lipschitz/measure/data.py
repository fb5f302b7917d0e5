"""Labelled images of any number, of which only those being worked on are in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.arrays import ArrayData
from captum_lipschitz.measure.folder import FolderData
from captum_lipschitz.measure.settings import AraSettings

_STARTING_IMAGES = 64


class ImageData(Protocol):
    """A data set that is read piece by piece."""

    @property
    def labels(self) -> Tensor:
        """Classes, (N,), int64; where several labels were asked for, (N, K) of 0, 1 and -1 (unknown)."""

    @property
    def identity(self) -> str:
        """A fingerprint: another one where images or labels are others."""

    @property
    def folder_classes(self) -> int | None:
        """How many class folders were numbered in sorted order; ``None`` where labels have another source."""

    @property
    def folder_names(self) -> Mapping[int, str]:
        """Name of its folder by class, where there are class folders."""

    def check(self, start: int, stop: int) -> None:
        """Find out, without decoding, whether the images from ``start`` to ``stop`` can be read.

        Raises:
            InvalidInputError: one cannot; the message names it.
        """

    def images(self, start: int, stop: int) -> Tensor:
        """The images from ``start`` to ``stop``, (stop - start, ...), float32, in [0, 1] where they are pictures."""

    def name(self, index: int) -> str:
        """What users know an image by: its file, or its row."""


def open_data(settings: AraSettings, *, several_labels: bool = False) -> ImageData:
    """The data set at ``settings.data``: a folder of class folders, or an ``.npz`` file.

    Args:
        settings: tell where it is, and how it is prepared.
        several_labels: take arrays with several labels for each image too.

    Raises:
        InvalidInputError: it is neither, or cannot be used.
    """
    path = settings.data
    if path.is_dir():
        return FolderData(
            path,
            class_index=settings.class_index,
            limit=settings.limit,
            resize=settings.resize,
            crop=settings.crop,
        )
    if not path.is_file() or path.suffix != ".npz":
        raise InvalidInputError(f"data: expected a folder of class folders or an .npz file, got {path}")
    for option in ("class_index", "resize", "crop"):
        if getattr(settings, option) is not None:
            raise InvalidInputError(f"{option}: expected with a folder of images only, got an .npz file")
    return ArrayData(path, limit=settings.limit, several_labels=several_labels)


def check_folder_classes(data: ImageData, settings: AraSettings, classes: int) -> None:
    """Raise ``InvalidInputError`` where folders were numbered in sorted order and are not as many as the classes."""
    if data.folder_classes is not None and data.folder_classes != classes:
        raise InvalidInputError(
            f"class_index: expected one, as {settings.data} has {data.folder_classes} class folders and the model "
            f"{classes} classes: the folders' order does not tell their classes"
        )


def starting_images(data: ImageData) -> Tensor:
    """Images spread evenly over the data: of a folder sorted by class, the first ones are all of one."""
    total = len(data.labels)
    count = min(_STARTING_IMAGES, total)
    chosen = [k * total // count for k in range(count)]
    for i in chosen:
        data.check(i, i + 1)
    return torch.cat([data.images(i, i + 1) for i in chosen])
