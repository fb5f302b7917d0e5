"""Finds plugins by entry point, without importing any of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module, metadata
from typing import NamedTuple, NoReturn

from captum_lipschitz.plugin.spec import PROJECT


class Candidate(NamedTuple):
    """A plugin that was found and not yet loaded; ``load`` returns the object that carries its hooks."""

    name: str
    distribution: str
    version: str
    load: Callable[[], object]


def candidates() -> list[Candidate]:
    """Our own plugin, then the installed ones in the order of their distribution's and their own name."""
    found = sorted(_installed(), key=lambda candidate: (candidate.distribution.lower(), candidate.name))
    return [builtin_candidate(), *found]


def builtin_candidate() -> Candidate:
    """Our own plugin."""
    try:
        version = metadata.version("captum-lipschitz")
    except metadata.PackageNotFoundError:  # run from a checkout
        version = "unknown"
    return Candidate("builtin", "captum-lipschitz", version, partial(import_module, "captum_lipschitz.plugin.builtin"))


def _installed() -> Iterator[Candidate]:
    """By distribution: ``metadata.entry_points`` fails for all of them where the file of a single one is damaged."""
    seen: set[str] = set()
    for distribution in metadata.distributions():
        try:
            ours = [(point.name, point.load) for point in distribution.entry_points if point.group == PROJECT]
        except Exception as error:  # noqa: BLE001 - becomes the plugin's record
            ours = [("entry_points.txt", partial(_raise, error))]
        if not ours:
            continue
        name, version = _identity(distribution)
        key = name.lower().replace("_", "-").replace(".", "-")
        if key not in seen:  # of two copies on sys.path, Python imports the first
            seen.add(key)
            yield from (Candidate(entry, name, version, load) for entry, load in ours)


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    try:
        return distribution.metadata["Name"] or "unknown", distribution.version or "unknown"
    except Exception:  # noqa: BLE001 - damaged metadata is no reason to refuse the code, and the record shows it
        return "unknown", "unknown"


def _raise(error: Exception) -> NoReturn:
    raise error
