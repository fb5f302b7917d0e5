"""Files that nobody vouches for: pictures, archives of them, and results, of sizes that memory can hold."""

from __future__ import annotations

import json
import lzma
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from captum_lipschitz._reading import open_regular, read_regular
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.images import FORMATS

_ENDINGS = (".png", ".jpg", ".jpeg")
_PICTURE = 2**20  # bytes of one: of 32 by 32 pixels, those of CIFAR-10 have some hundreds
_ARCHIVE = 2**32  # bytes of an archive unpacked, which takes half a minute; that of CIFAR-10 has some 60 million


def pictures_below(folder: Path) -> Iterator[tuple[str, BinaryIO]]:
    """Pictures of class folders, ``CLASS/FILE``, in the order of their names.

    Raises:
        InvalidInputError: one cannot be opened, or is no file.
    """
    for path in sorted(folder.glob("*/*")):
        if path.suffix.lower() in _ENDINGS:
            try:
                stream = open_regular(path)
            except OSError as error:
                raise InvalidInputError(f"data: {path} cannot be read: {error}") from error
            with stream:
                yield path.relative_to(folder).as_posix(), stream


def archived_pictures(path: Path) -> dict[str, list[tuple[str, BinaryIO]]]:
    """Those of a ``.tar.xz`` with folders ``train/CLASS`` and ``test/CLASS``, by the part, as ``CLASS/FILE``.

    Its members are read, and none is written to the disk.

    Raises:
        InvalidInputError: it cannot be read, or unpacks to more than such archives do.
    """
    found: dict[str, list[tuple[str, BinaryIO]]] = defaultdict(list)
    try:
        with (
            open_regular(path) as file,
            lzma.open(file) as content,
            tarfile.open(fileobj=_Bounded(content), mode="r:") as archive,  # type: ignore[call-overload]  # all it needs
        ):
            for member in archive:
                part, _, name = _below_root(member.name).partition("/")
                if part not in ("train", "test") or not member.isreg() or member.issparse():
                    continue
                stream = archive.extractfile(member)
                if stream is not None:
                    found[part].append((name, BytesIO(stream.read())))
    except (tarfile.TarError, lzma.LZMAError, EOFError, OSError, ValueError, OverflowError) as error:
        raise InvalidInputError(f"data: {path} cannot be read: {error}") from error
    return defaultdict(list, {part: sorted(pictures, key=lambda pair: pair[0]) for part, pictures in found.items()})


def decoded(stream: BinaryIO, name: str, *, side: int) -> NDArray[np.uint8]:
    """A picture of ``side`` by ``side`` pixels, as (side, side, 3).

    Raises:
        InvalidInputError: it cannot be decoded, or is of another size; the message begins with ``name``.
    """
    try:
        image = Image.open(stream, formats=FORMATS)
        size = image.size
        pixels = np.asarray(image.convert("RGB")) if size == (side, side) else None
    except UnidentifiedImageError as error:
        raise InvalidInputError(
            f"data: {name} cannot be read as an image (no {', '.join(FORMATS)} by its first bytes)"
        ) from error
    except Exception as error:  # Pillow's readers raise whatever a damaged file makes of them
        raise InvalidInputError(f"data: {name} is no picture that can be read: {error}") from error
    if pixels is None:
        raise InvalidInputError(f"data: expected {side} x {side} pixels, got {name} of {size[0]} x {size[1]}")
    return pixels


def read_results(path: Path) -> Any:
    """JSON as these scripts write it, also of figures that became NaN.

    Raises:
        OSError: it is no file, or has more bytes than such files.
        ValueError: it is no JSON.
    """
    try:
        return json.loads(read_regular(path).decode("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _below_root(name: str) -> str:
    """A member's name from ``train`` or ``test`` on, if it is below one."""
    parts = name.split("/")
    starts = [place for place, part in enumerate(parts) if part in ("train", "test")]
    return "/".join(parts[starts[0] :]) if starts else name


class _Bounded:
    """A file for ``tarfile``, which reads as much at once as a header says, and goes as far.

    Args:
        file: to be read.
    """

    def __init__(self, file: BinaryIO | lzma.LZMAFile) -> None:
        self._file = file

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _PICTURE:
            raise OSError(f"expected members of at most {_PICTURE} bytes, got {size}")
        return self._file.read(size)

    def seek(self, place: int) -> int:
        if place > _ARCHIVE:
            raise OSError(f"expected at most {_ARCHIVE} bytes unpacked, got a member that ends at {place}")
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()
