"""What was measured: one record per attack, network, criterion and box, kept per image in JSON."""

from __future__ import annotations

import json
import math
import os
import platform
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

AUTHORS = "published distances"


@dataclass(frozen=True)
class Record:
    """One attack's answers.

    Attributes:
        network: its name.
        first: index of the first image.
        criterion: its name.
        boxed: perturbed images stay in [0, 1].
        attack: its label, or ``AUTHORS`` for distances that were published and not measured.
        distances: in RMSE, one per image; 0 where the clean image meets the criterion, ``inf`` where none was found.
        gradients: spent on each image.
        seconds: for all images.
        chance: accuracy of guessing, 1 / C.
        refused: why the attack cannot pursue the criterion; then there is nothing else.
    """

    network: str
    first: int
    criterion: str
    boxed: bool
    attack: str
    distances: list[float] = field(default_factory=list)
    gradients: list[int] = field(default_factory=list)
    seconds: float = math.nan
    chance: float = math.nan
    refused: str = ""

    @property
    def measured(self) -> bool:
        """Run here, and not refused."""
        return not self.refused and self.attack != AUTHORS


@dataclass(frozen=True)
class Report:
    """Records, and the machine and versions that each lot of them was measured with."""

    machines: list[str]
    notes: list[str]
    records: list[Record]

    def save(self, path: Path) -> None:
        """Write JSON, whole or not at all; infinity and NaN, which JSON has not, are strings."""
        text = json.dumps(_spelled(asdict(self)), allow_nan=False)
        draft = path.with_name(path.name + ".part")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)

    @classmethod
    def merged(cls, paths: Iterable[Path]) -> Report:
        """Several files as one; of two records of the same attack on the same images, the later file's counts."""
        machines: dict[str, None] = {}
        notes: dict[str, None] = {}
        records: dict[tuple[object, ...], Record] = {}
        for path in paths:
            document = json.loads(path.read_text(encoding="utf-8"))
            machines |= dict.fromkeys(document["machines"])
            notes |= dict.fromkeys(document["notes"])
            for entry in document["records"]:
                record = _record(entry)
                head = (record.network, record.first, record.criterion, record.boxed, record.attack)
                records[head, len(record.distances)] = record
        return cls(list(machines), list(notes), list(records.values()))


def machine(device: str) -> str:
    """The processor or accelerator, its threads, and the versions of all that was run."""
    names = ["torch", "captum-lipschitz", "adv-lib", "torchattacks", "torchvision"]
    versions = [f"{name} {version}" for name in names if (version := _version(name))]
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else _processor()
    threads = f"{torch.get_num_threads()} thread(s) of {os.cpu_count()}"
    return f"{where}, {threads}, Python {platform.python_version()}, {', '.join(versions)}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _spelled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spelled(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_spelled(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _record(entry: dict[str, Any]) -> Record:
    entry["distances"] = [float(value) for value in entry["distances"]]
    return Record(**entry | {key: float(entry[key]) for key in ("seconds", "chance")})
