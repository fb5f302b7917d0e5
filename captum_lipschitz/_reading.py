"""Small files that nobody vouches for: read only where they are files, parsed only into what JSON can say."""

from __future__ import annotations

import errno
import json
import math
import os
import stat
from pathlib import Path
from typing import Any, BinaryIO

MOST_BYTES = 2**28  # of a file that is read as a whole: far above what is written here
_MOST_DIGITS = 400  # of a whole number: to read one takes time that grows with their square


def open_regular(path: str | Path) -> BinaryIO:
    """A file, opened for reading.

    Raises:
        OSError: it cannot be opened, or is none: a folder, a pipe that nobody writes to, a device without an end.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "Not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_regular(path: str | Path, *, most: int = MOST_BYTES) -> bytes:
    """A file's content.

    Args:
        path: of the file.
        most: bytes that it may have.

    Raises:
        OSError: as ``open_regular``; or it has more than ``most`` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > most:
            raise OSError(errno.EFBIG, f"Expected at most {most} bytes, got {size}", str(path))
        return file.read(size)


def parse_json(content: bytes) -> Any:
    """JSON in UTF-8, as strict as its standard: no NaN or infinity, no name twice in an object.

    Raises:
        ValueError: it is none, or of numbers or a depth that cannot be held.

    Example:
        >>> parse_json(b'{"a": [1, 2.5, null]}')
        {'a': [1, 2.5, None]}
    """
    try:
        return json.loads(
            content.decode("utf-8"),
            parse_constant=_finite,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_distinct,
        )
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def read_json(path: str | Path, *, most: int = MOST_BYTES) -> Any:
    """``parse_json`` of a file.

    Raises:
        OSError: as ``read_regular``.
        ValueError: as ``parse_json``.
    """
    return parse_json(read_regular(path, most=most))


def one_line(text: object) -> str:
    r"""Text as a terminal may have it: what would begin a line, move the cursor or turn the writing is spelled out.

    Example:
        >>> print(one_line(f"{chr(27)}[2J of a" + chr(10) + "name"))
        \x1b[2J of a\nname
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"expected finite numbers, got {text[:_MOST_DIGITS]}")
    return value


def _whole(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise ValueError(f"expected whole numbers of at most {_MOST_DIGITS} digits, got {len(text)}")
    return int(text)


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"expected each name once in an object, got {twice[:_MOST_DIGITS]!r} twice")
    return content
