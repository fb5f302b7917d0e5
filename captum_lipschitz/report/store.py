"""An audit's finished steps on disk: one file each, whole or not there, tied to what they were made with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from captum_lipschitz._files import write_whole
from captum_lipschitz._reading import parse_json, read_regular
from captum_lipschitz.measure.claim import ClaimedFolder

_ENDING = ".step"


@dataclass(frozen=True, kw_only=True)
class Step:
    """What a step found.

    Attributes:
        values: tensors by name; read back to the bit, on the CPU.
        notes: anything else, JSON's types.
        seconds: of work in it.
    """

    values: Mapping[str, Tensor] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


class StepStore(ClaimedFolder):
    """The finished steps under ``folder/steps``, of one identity.

    A step's file is a line of JSON (whose it is, notes, checksums), then its tensors as safetensors; nothing in it is
    code. A file of another identity, or damaged, counts as not there.

    Args:
        folder: of one model's audit.
        identity: everything that the steps depend on besides their names, as JSON's types.

    Example:
        >>> import tempfile, torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     store = StepStore(Path(folder), {"model": "a"})
        ...     store.claim()
        ...     store.save("attack-000000", Step(values={"distances": torch.tensor([0.5, torch.inf])}))
        ...     store.load("attack-000000").values["distances"].tolist(), store.load("attack-000008")
        ([0.5, inf], None)
    """

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        super().__init__(folder, identity, finished="steps")

    def load(self, name: str) -> Step | None:
        """The step, or ``None`` where it is not there whole."""
        try:
            header, _, payload = read_regular(self._path(name)).partition(b"\n")
            content = parse_json(header)
            told = content.pop("checksum")
            if told != _checksum(content, payload) or (content["identity"], content["step"]) != (
                self.fingerprint,
                name,
            ):
                return None
            return Step(
                values=safetensors.torch.load(payload), notes=content["notes"], seconds=float(content["seconds"])
            )
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError, SafetensorError):
            return None

    def save(self, name: str, step: Step) -> None:
        """Put a step on disk, whole.

        Raises:
            InvalidInputError: the folder has become another run's meanwhile.
            OSError: the disk is full, or gone.
        """
        self.check()
        payload = safetensors.torch.save(
            {key: value.detach().cpu().clone().contiguous() for key, value in step.values.items()}
        )
        content = {"step": name, "identity": self.fingerprint, "notes": dict(step.notes), "seconds": step.seconds}
        header = json.dumps({**content, "checksum": _checksum(content, payload)}, allow_nan=False)
        write_whole(self._path(name), header.encode() + b"\n" + payload)

    def remove_others(self, beginning: str, kept: Iterable[str]) -> None:
        """Remove the steps whose names have this beginning, but those in ``kept``."""
        names = {f"{name}{_ENDING}" for name in kept}
        for path in self.finished.glob(f"{beginning}*{_ENDING}"):
            if path.name not in names:
                path.unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self.finished / f"{name}{_ENDING}"


def _checksum(content: Mapping[str, Any], payload: bytes) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode() + payload).hexdigest()
