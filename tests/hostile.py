"""Files as nobody would write them by mistake, and files as a bad disk leaves them."""

from __future__ import annotations

import io
import os
import pickle
import random
import signal
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

TIMES = int(os.environ.get("CAPTUM_LIPSCHITZ_FUZZ", "1"))
"""How many times as many damaged files as usual: ``CAPTUM_LIPSCHITZ_FUZZ=50 pytest tests/security``."""


def damaged(content: bytes, *, each: int = 12, seed: int = 0) -> Iterator[bytes]:
    """A file cut off, with bits flipped, bytes swapped, a part repeated, zeroed or huge: ``each`` of every kind."""
    draw = random.Random(seed)  # noqa: S311 - not for secrets
    for _ in range(each * TIMES):
        at, other = sorted(draw.randrange(len(content)) for _ in range(2))
        yield content[:at]
        yield content[:at] + bytes([content[at] ^ 1 << draw.randrange(8)]) + content[at + 1 :]
        swapped = bytearray(content)
        swapped[at], swapped[other] = content[other], content[at]
        yield bytes(swapped)
        yield content[:at] + content[at:other] + content[at:other][:64] + content[other:]
        yield content[:at] + bytes(min(8, len(content) - at)) + content[at + 8 :]
        yield content[:at] + b"\xff" * 8 + content[at + 8 :]


class Payload:
    """Unpickling this makes a folder."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.made),)


def payload_works(folder: Path) -> bool:
    """Whether a payload, unpickled, would be noticed."""
    pickle.loads(pickle.dumps(Payload(folder / "noticed")))  # noqa: S301 - our own
    return (folder / "noticed").is_dir()


def tuples_within_tuples(levels: int) -> bytes:
    """A pickle of some hundred bytes whose one key has ``2**levels`` parts."""
    grown = b"".join(b"q" + bytes([i]) + b"h" + bytes([i]) + b"\x86" for i in range(levels))
    return b"\x80\x02}" + b"K\x01\x85" + grown + b"K\x01s."


def with_member(archive: bytes, ending: str, content: bytes, *, compression: int = zipfile.ZIP_STORED) -> bytes:
    """A zip archive with one member's content replaced."""
    written = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as old, zipfile.ZipFile(written, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, content if name.endswith(ending) else old.read(name))
    return written.getvalue()


def array_file(shape: tuple[int, ...], descr: str = "|u1", content: bytes = b"") -> bytes:
    """An ``.npy`` file whose header says what it likes."""
    head = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    return np.lib.format.magic(1, 0) + struct.pack("<H", len(head)) + head + content


def png(width: int, height: int, pixels: bytes = b"") -> bytes:
    """A grey PNG whose header says what it likes; ``pixels``: rows, each with its filter's byte before it."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(pixels)) + chunk(b"IEND", b"")


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Fail where the code inside waits for longer than that."""

    def over(*_: object) -> None:
        pytest.fail(f"still waiting after {seconds} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def endless(path: Path, kind: str) -> Path:
    """A pipe that nobody writes to, a device without an end, or a folder, in a file's place."""
    make: dict[str, Callable[[], object]] = {
        "pipe": lambda: os.mkfifo(path),
        "device": lambda: path.symlink_to("/dev/zero"),
        "folder": path.mkdir,
    }
    make[kind]()
    return path


ENDLESS = pytest.mark.parametrize(
    "kind",
    ["pipe", "device", "folder"] if hasattr(os, "mkfifo") else ["folder"],
)
