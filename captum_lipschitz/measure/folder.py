"""A folder of class folders of image files, read with Pillow as torchvision's evaluation transforms do."""

from __future__ import annotations

import hashlib
import os
import reprlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_lipschitz._reading import open_regular, read_json
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.images import as_rgb, check_enlarged, opened_image, pillow

_ENDINGS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
_COMPRESSED = (".jpg", ".jpeg", ".png", ".webp")
_SAMPLE = 16_384
_LAST = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}  # what whole files of a format end with
_LAST_CLASS = 2**31 - 1
_TAIL = 64  # bytes among which it is looked for


class FolderData:
    """Images ``root/CLASS/**/FILE``, classes and files in sorted order.

    Args:
        root: the folder.
        class_index: JSON that gives each class folder its class, ``{"n01440764": [0, "tench"]}``,
            ``{"0": ["n01440764", "tench"]}`` or ``{"n01440764": 0}``; ``None`` numbers the folders in sorted order.
        limit: number of images, spread evenly over the sorted list so that no class is preferred; ``None`` for all.
        resize: short side in pixels, bilinear with antialiasing; ``None`` for none.
        crop: side in pixels of the square cut from the centre; ``None`` for none.

    Raises:
        InvalidInputError: the folder has no images, a class folder has no class, or the index cannot be read.
        MissingDependencyError: Pillow is not installed.
    """

    def __init__(
        self,
        root: Path,
        *,
        class_index: Path | None = None,
        limit: int | None = None,
        resize: int | None = None,
        crop: int | None = None,
    ) -> None:
        pillow()
        self._root, self._resize, self._crop = root, resize, crop
        folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
        if not folders:
            raise InvalidInputError(f"data: expected class folders in {root}, got none")
        classes = dict(zip(folders, range(len(folders)), strict=True))
        if class_index is not None:
            classes = _chosen(folders, read_class_index(class_index), class_index)
        listed = [(path, classes[folder]) for folder in folders for path in _image_files(root / folder)]
        if not listed:
            raise InvalidInputError(f"data: expected images ({', '.join(_ENDINGS)}) in the folders of {root}, got none")
        if limit is not None and limit < len(listed):
            listed = [listed[i * len(listed) // limit] for i in range(limit)]
        self._paths = [path for path, _ in listed]
        self.labels = torch.tensor([label for _, label in listed])
        self.folder_classes = len(folders) if class_index is None else None
        self.folder_names = {number: _text(folder) for folder, number in classes.items()}
        self._shape: tuple[int, int] | None = None

    @property
    def identity(self) -> str:
        digest = hashlib.sha256()
        for path, label in zip(self._paths, self.labels.tolist(), strict=True):
            name = path.relative_to(self._root).as_posix().encode("utf-8", "surrogateescape")
            digest.update(name + f" {path.stat().st_size} {label}\n".encode())
            digest.update(_sample(path))
        return digest.hexdigest()

    def name(self, index: int) -> str:
        return _text(self._paths[index].relative_to(self._root).as_posix())

    def check(self, start: int, stop: int) -> None:
        """Headers and last bytes; a file that does not end as its format does is decoded to make sure."""
        expected = self._expected_shape()
        for path in self._paths[start:stop]:
            with opened_image(path) as image:
                (width, height), last = image.size, _LAST.get(image.format)
            shape = self._final_shape(width, height)
            if self._crop is not None and min(self._resized(width, height)) < self._crop:
                raise InvalidInputError(
                    f"crop: expected images of at least {self._crop} pixels, got {path} {(width, height)}"
                )
            check_enlarged(path, *self._resized(width, height))
            if shape != expected:
                raise InvalidInputError(
                    f"data: expected images of one size, got {path} with {shape[0]} x {shape[1]} and others with "
                    f"{expected[0]} x {expected[1]} pixels; bring them to one with resize and crop"
                )
            if last is None or last not in _tail(path):
                self._decoded(path)

    def images(self, start: int, stop: int) -> Tensor:
        return torch.stack([self._decoded(path) for path in self._paths[start:stop]])

    def _expected_shape(self) -> tuple[int, int]:
        if self._shape is None:
            with opened_image(self._paths[0]) as image:
                self._shape = self._final_shape(*image.size)
        return self._shape

    def _final_shape(self, width: int, height: int) -> tuple[int, int]:
        return self._resized(width, height) if self._crop is None else (self._crop, self._crop)

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Width and height after bringing the short side to ``resize``, the long one cut to whole pixels."""
        if self._resize is None:
            return width, height
        short = min(width, height)
        return int(self._resize * width / short), int(self._resize * height / short)

    def _decoded(self, path: Path) -> Tensor:
        """One image, (3, H, W), float32 in [0, 1]."""
        with opened_image(path) as opened:
            image = as_rgb(opened, path)
        if self._resize is not None:
            check_enlarged(path, *self._resized(*image.size))
            image = image.resize(self._resized(*image.size), pillow().Resampling.BILINEAR)
        if self._crop is not None:
            left, top = (round((side - self._crop) / 2) for side in image.size)
            image = image.crop((left, top, left + self._crop, top + self._crop))
        pixels = torch.from_numpy(np.array(image, dtype=np.uint8))
        return pixels.permute(2, 0, 1).contiguous().float() / 255


def read_class_index(path: Path) -> dict[str, int]:
    """Classes by the name of their folder, from JSON of any of the forms that ``FolderData`` takes.

    Raises:
        InvalidInputError: the file cannot be read, or has another form.
    """
    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"class_index: {path} cannot be read as JSON ({error})") from error
    if not isinstance(content, dict) or not content:
        raise InvalidInputError(f"class_index: expected a JSON object in {path}, got {type(content).__name__}")
    classes: dict[str, int] = {}
    for key, value in content.items():
        first = value[0] if isinstance(value, list) and value else value
        folder, number = (first, key) if isinstance(first, str) else (key, first)
        if isinstance(number, bool) or not str(number).isdecimal() or int(number) > _LAST_CLASS:
            raise InvalidInputError(
                f'class_index: expected {{"n01440764": [0, "tench"]}} or {{"0": ["n01440764", "tench"]}} in {path}, '
                f"got {reprlib.repr(key)}: {reprlib.repr(value)}"
            )
        classes[folder] = int(number)
    return classes


def _chosen(folders: list[str], index: dict[str, int], path: Path) -> dict[str, int]:
    unknown = [folder for folder in folders if folder not in index]
    if unknown:
        raise InvalidInputError(f"class_index: {path} has no class for the folder {unknown[0]!r}")
    return {folder: index[folder] for folder in folders}


def _image_files(folder: Path) -> list[Path]:
    """Files in sorted order, those in folders below included; each folder once, however many links lead to it."""
    found: list[Path] = []
    seen: set[tuple[int, int]] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        where = Path(parent).stat()
        if (where.st_dev, where.st_ino) in seen:
            folders.clear()
            continue
        seen.add((where.st_dev, where.st_ino))
        folders.sort()
        found += [Path(parent, name) for name in sorted(names) if name.lower().endswith(_ENDINGS)]
    return found


def _sample(path: Path) -> bytes:
    """Bytes that differ where the picture does: of a compressed file its ends, as any change moves what follows it."""
    with open_regular(path) as file:
        if path.suffix.lower() not in _COMPRESSED:
            return hashlib.sha256(file.read()).digest()
        head = file.read(_SAMPLE)
        file.seek(max(file.tell(), path.stat().st_size - _SAMPLE))
        return hashlib.sha256(head + file.read()).digest()


def _tail(path: Path) -> bytes:
    with open_regular(path) as file:
        file.seek(max(0, path.stat().st_size - _TAIL))
        return file.read()


def _text(name: str) -> str:
    """A file's name as text that can be written: bytes that are no UTF-8 are spelled out."""
    return name.encode("utf-8", "backslashreplace").decode()
