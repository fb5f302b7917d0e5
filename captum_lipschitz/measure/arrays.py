"""Images and labels in an ``.npz`` file, of which a piece at a time is read."""

from __future__ import annotations

import hashlib
import math
import tokenize
import weakref
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_lipschitz._reading import open_regular
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

_NAMES = (("images", "labels"), ("test_images", "test_labels"), ("x", "y"), ("x_test", "y_test"))
_CHANNELS = (1, 3)
_FLOATS = (np.dtype("f2"), np.dtype("f4"), np.dtype("f8"))
_DENSEST = 1100  # bytes out of one that deflate, which packs 1,032 at most, was given
_MOST_LABELS = 2**27  # far more than images that anybody attacks one by one
_MOST_IN_AN_IMAGE = 2**31  # bytes: a volume of 800 by 800 by 800 floats


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[np.generic]
    offset: int  # bytes before the first row


class ArrayData:
    """The arrays ``images`` and ``labels`` of an ``.npz`` file, or others that are usual.

    Names: ``images`` and ``labels``; else ``test_images`` and ``test_labels``; else ``x`` and ``y``; else ``x_test``
    and ``y_test``. Images: uint8, divided by 255, or floating, taken as they are; (N, C, H, W), or (N, H, W, C) where
    the last dimension is 1 or 3 and the second is neither, or (N, H, W), or (N, D), or volumes (N, C, D, H, W). Labels:
    integers, (N,) or (N, 1).

    Rows are read from the file when asked for, compressed or not; those before them in a compressed array are
    decompressed and dropped. Memory holds what was asked for, and the labels.

    Args:
        path: the file.
        limit: the first so many images; ``None`` for all.
        several_labels: take labels (N, K) too, of 0, 1 and -1 (unknown), bool or integers.

    Raises:
        InvalidInputError, InvalidTypeError: for a file or arrays that cannot be used.
    """

    folder_classes = None
    folder_names: Mapping[int, str] = MappingProxyType({})

    def __init__(self, path: Path, *, limit: int | None = None, several_labels: bool = False) -> None:
        self._path = path
        with _named(f"data: {path} cannot be read as .npz"):
            file = open_regular(path)
            weakref.finalize(self, file.close)  # a ZipFile closes only what it has opened itself
            self._archive = zipfile.ZipFile(file)
            images, labels = self._members()
            self._header = _read_header(self._archive, images)
            self.labels = _checked_labels(self._archive, labels, several=several_labels)
        self._images = images
        self._rows: IO[bytes] | None = None
        self._check_images()
        self.labels = self.labels[:limit]

    @property
    def identity(self) -> str:
        """Of the archive's own checksums, so without reading the arrays, and of the number of images."""
        members = [self._archive.getinfo(f"{name}.npy") for name in self._members(names_only=True)]
        told = [(member.filename, member.file_size, member.CRC) for member in members]
        return hashlib.sha256(repr((told, len(self.labels))).encode()).hexdigest()

    def name(self, index: int) -> str:
        return str(index)

    def check(self, start: int, stop: int) -> None:
        """Nothing: what could be known was checked when the file was opened."""

    def images(self, start: int, stop: int) -> Tensor:
        header = self._header
        row = math.prod(header.shape[1:]) * header.dtype.itemsize
        with _named(f"data: images {start} to {stop - 1} of {self._path} cannot be read"):
            content = self._read(header.offset + start * row, (stop - start) * row)
        rows = np.frombuffer(content, header.dtype).reshape(stop - start, *header.shape[1:])
        images = _as_floats(torch.from_numpy(rows.astype(rows.dtype.newbyteorder("="))))
        if not bool(torch.isfinite(images).all()):
            raise InvalidInputError(
                f"data: expected finite numbers, got NaN or infinity in images {start} to {stop - 1} of {self._path}"
            )
        return images

    def _read(self, position: int, size: int) -> bytes:
        """Part of the images' member; the stream stays open, so that reading on does not begin anew."""
        if self._rows is None:
            self._rows = self._archive.open(self._images)
        self._rows.seek(position)
        content = self._rows.read(size)
        if len(content) != size:
            raise EOFError(f"expected {size} bytes more, got {len(content)}")
        return content

    def _members(self, *, names_only: bool = False) -> tuple[str, str]:
        there = {name.removesuffix(".npy") for name in self._archive.namelist()}
        for images, labels in _NAMES:
            if images in there and labels in there:
                return (images, labels) if names_only else (f"{images}.npy", f"{labels}.npy")
        choices = ", ".join(f"{images} and {labels}" for images, labels in _NAMES)
        raise InvalidInputError(f"data: expected arrays {choices} in {self._path}, got {sorted(there)}")

    def _check_images(self) -> None:
        shape, dtype = self._header.shape, self._header.dtype
        if dtype != np.uint8 and dtype.newbyteorder("=") not in _FLOATS:
            raise InvalidTypeError(f"data: expected images of type uint8 or floating, got {dtype} in {self._path}")
        if not 2 <= len(shape) <= 5 or 0 in shape:
            raise InvalidInputError(f"data: expected images (N, C, H, W) in {self._path}, got {shape}")
        if math.prod(shape[1:]) * dtype.itemsize > _MOST_IN_AN_IMAGE:
            raise InvalidInputError(
                f"data: expected images of at most {_MOST_IN_AN_IMAGE} bytes in {self._path}, got {shape[1:]}"
            )
        if len(self.labels) != shape[0]:
            raise InvalidInputError(f"data: expected as many labels as images, {shape[0]}, got {len(self.labels)}")


def read_array(path: Path, name: str, *, most: int) -> NDArray[Any]:
    """One array of an ``.npz`` file, as a whole.

    Args:
        path: the file.
        name: of the array.
        most: bytes that it may have.

    Raises:
        InvalidInputError, InvalidTypeError: the file cannot be read, has no such array, or one of objects, of more
            bytes than ``most``, or of another size than its header says.
    """
    member = f"{name}.npy"
    with (
        _named(f"data: {path} cannot be read as .npz"),
        open_regular(path) as file,
        zipfile.ZipFile(file) as archive,
    ):
        header = _read_header(archive, member)
        if math.prod(header.shape) * header.dtype.itemsize > most:
            raise InvalidInputError(f"data: expected at most {most} bytes in {member} of {path}, got {header.shape}")
        with archive.open(member) as content:
            array: NDArray[Any] = np.lib.format.read_array(content, allow_pickle=False)
            return array


@contextmanager
def _named(what: str) -> Iterator[None]:
    """Whatever a damaged archive, or a header that lies, makes of reading it: an error that says ``what``."""
    try:
        yield
    except (InvalidInputError, InvalidTypeError):
        raise
    except (
        zipfile.BadZipFile, OSError, EOFError, zlib.error, ValueError, TypeError, SyntaxError, tokenize.TokenError,
        RuntimeError, OverflowError, MemoryError, KeyError,
    ) as error:  # fmt: skip
        raise InvalidInputError(f"{what} ({error})") from error


def _read_header(archive: zipfile.ZipFile, member: str) -> _Header:
    """Shape, dtype and place of an array, without reading it; the member has room for what the header says."""
    with archive.open(member) as file:
        try:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_columns, dtype = read(file)
        except ValueError as error:
            raise InvalidInputError(f"data: {member} is not an array of numpy ({error})") from error
        if dtype.hasobject:
            raise InvalidTypeError(f"data: expected numbers in {member}, got objects, and reading those would run code")
        if by_columns and len(shape) > 1:
            raise InvalidInputError(
                f"data: expected {member} row by row, got it by columns; save numpy.ascontiguousarray(...) instead"
            )
        _check_room(archive.getinfo(member), shape, file.tell() + math.prod(shape) * dtype.itemsize)
        return _Header(shape, dtype, file.tell())


def _check_room(member: zipfile.ZipInfo, shape: tuple[int, ...], size: int) -> None:
    """Raise unless an array of ``size`` bytes, header included, can come out of a member's bytes."""
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InvalidInputError(
            f"data: expected {member.filename} stored or deflated, as numpy.savez writes it, got another compression"
        )
    densest = 1 if member.compress_type == zipfile.ZIP_STORED else _DENSEST
    if any(length < 0 for length in shape) or not size == member.file_size <= densest * member.compress_size:
        raise InvalidInputError(
            f"data: expected {member.filename} to hold what its header says, an array {shape}, got another number of "
            "bytes"
        )


def _checked_labels(archive: zipfile.ZipFile, member: str, *, several: bool) -> Tensor:
    header = _read_header(archive, member)
    several = several and len(header.shape) == 2 and header.shape[1] > 1
    if not np.issubdtype(header.dtype, np.integer) and not (several and header.dtype == np.bool_):
        raise InvalidTypeError(f"data: expected integer classes in {member}, got {header.dtype}")
    if header.shape[1:] not in ((), (1,)) and not several:
        raise InvalidInputError(f"data: expected one class per image in {member}, shape (N,), got {header.shape}")
    if math.prod(header.shape) > _MOST_LABELS:
        raise InvalidInputError(f"data: expected at most {_MOST_LABELS} labels in {member}, got {header.shape}")
    with archive.open(member) as file:
        labels = np.lib.format.read_array(file, allow_pickle=False)
    return torch.from_numpy(labels.astype(np.int64).reshape(labels.shape if several else -1))


def _as_floats(rows: Tensor) -> Tensor:
    """Images as models take them: float32, bytes in [0, 1], channels second."""
    if rows.dim() == 3:
        rows = rows[:, None]
    elif rows.dim() == 4 and rows.shape[3] in _CHANNELS and rows.shape[1] not in _CHANNELS:
        rows = rows.permute(0, 3, 1, 2)
    rows = rows.contiguous()
    return rows.float() / 255 if rows.dtype == torch.uint8 else rows.float()
