"""What the command was asked to measure, and what of it the figures depend on."""

from __future__ import annotations

import hashlib
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.masking import Depth, check_depth

_ABSENT = "not set"
_LONGEST = 400  # characters of a value in a message
_BRIEF = reprlib.Repr()
_BRIEF.maxlevel, _BRIEF.maxdict, _BRIEF.maxlist, _BRIEF.maxstring = 4, 16, 16, _LONGEST


@dataclass(frozen=True, kw_only=True)
class AraSettings:
    """Everything that ``captum-lipschitz ara`` takes; the command's options of the same names.

    Attributes:
        model: ``"torchvision:NAME"`` or ``"package.module:callable"``.
        data: a folder of class folders of images, or an ``.npz`` file.
        output: folder for chunks and results; made where absent.
        weights: safetensors, or a state dict saved by torch; ``None`` leaves the model as its callable makes it.
        class_index: JSON that gives each class folder its class; ``None`` numbers the folders in sorted order.
        limit: number of images, at least 1; ``None`` is all of them.
        criterion: ``"misclassified"`` or ``"below_chance"``.
        attack: name of a component of kind ``"attack"``.
        effort: of the attack, where it knows efforts; ``None`` is its default.
        norm: ``"rmse"``, ``"l2"`` or ``"linf"``; ``None`` is the attack's default.
        bounds: the box of the images, (low, high); ``None`` is the attack's default.
        chance: accuracy of guessing: ``"uniform"``, ``"majority"`` or a fraction in [0, 1).
        device: torch device; ``"auto"`` is a GPU where there is one. Where it names no index, each process of a machine
            takes a GPU of its own.
        chunk_size: images attacked at once and saved together, at least 1.
        resize: length in pixels that each image's short side is brought to, at least 1; ``None`` for none.
        crop: side in pixels of the square cut from each image's centre, at least 1; ``None`` for none.
        mean: per channel (or one for all), subtracted inside the model, in units of [0, 1].
        std: likewise, what is then divided by, positive.
        threads: of the CPU, at least 1. Another number may change the last bits of the figures.
        doubts: how closely to look for reasons to distrust the figure: ``"quick"``, ``"full"`` or ``"off"``.
        restart: throw away what an earlier run left in ``output``.
        timeout: seconds, positive: how long a process may give no sign of life before the others give up.

    Raises:
        InvalidInputError: for a value out of its range.
    """

    model: str
    data: Path
    output: Path
    weights: Path | None = None
    class_index: Path | None = None
    limit: int | None = None
    criterion: str = "misclassified"
    attack: str = "minimum_norm"
    effort: str | None = None
    norm: str | None = None
    bounds: tuple[float, float] | None = None
    chance: str | float = "uniform"
    device: str = "auto"
    chunk_size: int = 64
    resize: int | None = None
    crop: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    threads: int = 1
    doubts: Depth = "quick"
    restart: bool = False
    timeout: float = 300.0

    def __post_init__(self) -> None:
        for name in ("limit", "chunk_size", "resize", "crop", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidInputError(f"{name}: expected at least 1, got {value}")
        if not self.timeout > 0:
            raise InvalidInputError(f"timeout: expected a positive number of seconds, got {self.timeout}")
        if self.resize is not None and self.crop is not None and self.crop > self.resize:
            raise InvalidInputError(f"crop: expected at most the short side {self.resize}, got {self.crop}")
        if (self.mean is None) != (self.std is None):
            raise InvalidInputError("mean, std: expected both or neither, got one")
        if any(not value > 0 for value in self.std or ()):
            raise InvalidInputError(f"std: expected positive values, got {self.std}")
        if self.chance not in ("uniform", "majority") and (isinstance(self.chance, str) or not 0 <= self.chance < 1):
            raise InvalidInputError(
                f"chance: expected 'uniform', 'majority' or a fraction in [0, 1), got {self.chance!r}"
            )
        check_depth(self.doubts)

    def identity(self) -> dict[str, Any]:
        """The settings that each image's distance depends on, as JSON's types.

        ``chance`` and ``doubts`` are none of them: they enter when the chunks are put together, and may differ from run
        to run. Where
        weights and images lie is none either: the caller adds what they are.
        """
        names = ("model", "criterion", "attack", "effort", "norm", "bounds", "chunk_size", "resize", "crop")
        plain = {name: getattr(self, name) for name in (*names, "mean", "std")}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def fingerprint(identity: Mapping[str, Any]) -> str:
    """One short text for an identity: equal where all its entries are."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """The entries in which two identities differ, in words.

    Example:
        >>> differences({"limit": 10, "norm": "l2"}, {"limit": 20, "norm": "l2"})
        ['limit (10, now 20)']
    """
    names = sorted(set(earlier) | set(now))
    return [
        f"{name} ({_told(earlier.get(name, _ABSENT))}, now {_told(now.get(name, _ABSENT))})"
        for name in names
        if earlier.get(name, _ABSENT) != now.get(name, _ABSENT)
    ]


def _told(value: object) -> str:
    """A value as a message can hold it, whatever file it came from."""
    text = _BRIEF.repr(value) if isinstance(value, dict | list) else str(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."


def version_of(package: str) -> str:
    """The installed version of a distribution; a package run from its source folder may have none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"
