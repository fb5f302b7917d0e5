"""Image files that nobody vouches for, opened with Pillow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from captum_lipschitz._reading import open_regular
from captum_lipschitz.errors import InvalidInputError, MissingDependencyError

FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")
"""What a file may hold, whatever its name ends with: of Pillow's others, some start programs."""

LARGEST = 2**28
"""Pixels that an image may be enlarged to: one of a single line would grow to any size."""


@contextmanager
def opened_image(path: Path, *, argument: str = "data") -> Iterator[Any]:
    """An image whose header was read, and no more; closed at the end.

    Args:
        path: of the file.
        argument: that errors name.

    Raises:
        InvalidInputError: it is no file, of none of ``FORMATS``, or claims more pixels than Pillow takes.
        MissingDependencyError: Pillow is not installed.
    """
    module = pillow()
    try:
        file = open_regular(path)
    except OSError as error:
        raise _unread(argument, path, error) from error
    with file:
        try:
            image = module.open(file, formats=FORMATS)
        except module.UnidentifiedImageError as error:
            reason = f"no {', '.join(FORMATS[:-1])} or {FORMATS[-1]} by its first bytes"
            raise InvalidInputError(f"{argument}: {path} cannot be read as an image ({reason})") from error
        except Exception as error:  # Pillow's readers raise whatever a damaged file makes of them
            raise _unread(argument, path, error) from error
        yield image


def as_rgb(image: Any, path: Path, *, argument: str = "data") -> Any:
    """An opened image's pixels, three channels.

    Raises:
        InvalidInputError: it cannot be decoded.
    """
    try:
        image.load()
        return image if image.mode == "RGB" else image.convert("RGB")
    except Exception as error:  # as above
        raise InvalidInputError(f"{argument}: {path} cannot be decoded ({error})") from error


def check_enlarged(path: Path, width: int, height: int, *, argument: str = "resize") -> None:
    """Raise ``InvalidInputError`` where an image is to be brought to more than ``LARGEST`` pixels."""
    if width * height > LARGEST:
        raise InvalidInputError(
            f"{argument}: expected images of at most {LARGEST} pixels after it, got {path} with {width} x {height}"
        )


def pillow() -> ModuleType:
    """The module ``PIL.Image``."""
    try:
        from PIL import Image
    except ImportError as error:
        raise MissingDependencyError(
            f'data: Pillow cannot be imported ({error}); install it with: pip install "captum-lipschitz[vision]"'
        ) from error
    return Image


def _unread(argument: str, path: Path, error: Exception) -> InvalidInputError:
    return InvalidInputError(f"{argument}: {path} cannot be read as an image ({error})")
