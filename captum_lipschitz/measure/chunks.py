"""Finished work on disk: one file per chunk of images, each whole or not there, tied to what it was made with."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._files import write_whole
from captum_lipschitz._reading import read_json
from captum_lipschitz.measure.claim import ClaimedFolder
from captum_lipschitz.metrics.measurement import Part

_DTYPES = {"float64": torch.float64, "float32": torch.float32, "int64": torch.int64, "bool": torch.bool}


@dataclass(frozen=True)
class Chunk:
    """One chunk's answers, and the seconds of work in them."""

    part: Part
    seconds: float


def spans(images: int, chunk_size: int) -> list[tuple[int, int]]:
    """Start and stop of every chunk: cut by index alone, so that any number of processes has the same ones.

    Example:
        >>> spans(5, 2)
        [(0, 2), (2, 4), (4, 5)]
    """
    return [(start, min(start + chunk_size, images)) for start in range(0, images, chunk_size)]


class ChunkStore(ClaimedFolder):
    """The chunks under ``folder``, of one identity.

    Several processes, and even several runs, may use a folder at once without a lock: a chunk's file is moved into its
    place whole, names the identity it belongs to, and is the same whoever makes it. One with another identity, or
    damaged, counts as not there and is made again.

    Args:
        folder: of the whole run.
        identity: everything that the answers depend on, as JSON's types.
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(folder, identity, finished="chunks")

    def load(self, index: int, size: int) -> Chunk | None:
        """The chunk ``index`` of ``size`` images, or ``None`` where it is not there whole."""
        try:
            content = read_json(self._path(index))
            checksum = content.pop("checksum")
            if checksum != _checksum(content) or content["identity"] != self.fingerprint or content["index"] != index:
                return None
            chunk = Chunk(_as_part(content["part"]), float(content["seconds"]))
            return chunk if is_whole(chunk.part, size) else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError):
            return None

    def save(self, index: int, chunk: Chunk) -> None:
        """Put a chunk on disk, whole.

        Raises:
            InvalidInputError: the folder has become another run's meanwhile.
            OSError: the disk is full, or gone.
        """
        self.check()
        content = {
            "index": index, "identity": self.fingerprint, "seconds": chunk.seconds, "part": _as_plain(chunk.part)
        }  # fmt: skip
        text = json.dumps({**content, "checksum": _checksum(content)}, allow_nan=False)
        write_whole(self._path(index), text.encode() + b"\n")

    def _path(self, index: int) -> Path:
        return self.finished / f"{index:06d}.json"


def is_whole(part: Part, size: int) -> bool:
    """Whether a part that was read is one of ``size`` images: of the right shapes, its figures within their ranges."""
    tensors = (
        (part.distances, torch.float64),
        (part.labels, torch.int64),
        (part.correct, torch.bool),
        (part.gradient_evaluations, torch.int64),
    )
    return (
        all(tensor.dtype == dtype and tensor.shape == (size,) for tensor, dtype in tensors)
        and type(part.num_classes) is int
        and bool((part.distances >= 0).all())
        and bool(((part.labels >= 0) & (part.labels < part.num_classes)).all())
    )


def _checksum(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _as_plain(part: Part) -> dict[str, Any]:
    """A part as JSON's types; its numbers read back to the bit, infinity being ``null``."""
    plain: dict[str, Any] = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            values = [None if item == math.inf else item for item in value.tolist()]
            value = {"dtype": str(value.dtype).removeprefix("torch."), "values": values}
        plain[field.name] = value
    return plain


def _as_part(plain: Mapping[str, Any]) -> Part:
    values: dict[str, Any] = {}
    for name, value in plain.items():
        if isinstance(value, dict):
            items = [math.inf if item is None else item for item in value["values"]]
            values[name] = torch.tensor(items, dtype=_DTYPES[value["dtype"]])
        else:
            values[name] = value
    return Part(**values)
