"""Files that are whole or not there, whatever kills the process or the machine meanwhile."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

_SUFFIX = ".part"
_STALE = 3600.0  # seconds after which a half-written file belongs to nobody any more


def write_whole(path: Path, content: bytes) -> None:
    """Write ``content`` beside ``path``, wait until the disk has it, and move it there.

    The file beside it has a name of its own for each call, so that several writers of one path do not disturb each
    other: the last one's content stands, whole.

    Raises:
        OSError: the disk is full, or the folder cannot be written to; ``path`` is then as it was.
    """
    _written(path, content, lambda temporary: os.replace(temporary, path))  # noqa: PTH105 (atomic, and says so)


def create_whole(path: Path, content: bytes) -> bool:
    """As ``write_whole`` where ``path`` does not exist; ``False``, and nothing changed, where it does."""
    try:
        _written(path, content, lambda temporary: os.link(temporary, path))
    except FileExistsError:
        return False
    except OSError:  # a file system without hard links: the check and the move are then two steps
        if path.exists():
            return False
        write_whole(path, content)
    return True


def remove_leftovers(folder: Path) -> None:
    """Remove what killed writers left half-written, once it is so old (an hour) that no living one can want it."""
    for path in folder.glob(f".*{_SUFFIX}"):
        with suppress(FileNotFoundError):  # another process was faster
            if time.time() - path.stat().st_mtime > _STALE:
                path.unlink()


def _written(path: Path, content: bytes, move: Callable[[Path], None]) -> None:
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{_SUFFIX}")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        move(temporary)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _sync_folder(folder: Path) -> None:
    """Have the disk hold the folder's new entry too; a system that cannot open folders does so by itself."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
