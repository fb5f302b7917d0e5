"""What the user asked the factories for: an environment variable, or a file in the working directory."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

VARIABLE = "CAPTUM_LIPSCHITZ_LIGHTNING"
"""JSON, ``{"lipschitz": {"strength": 30}}``, or the path of a file with it; empty for nothing at all."""

FILE = "captum-lipschitz-lightning.json"
"""Looked for in the working directory where the variable is not set."""

SECTIONS = ("lipschitz", "ara", "fabric")
"""Settings of ``LipschitzCallback``, of ``AraCallback`` and of ``FabricLipschitz``."""


def requested() -> dict[str, dict[str, Any]]:
    """The sections that the user wrote; none without a word from them.

    Raises:
        InvalidInputError: what was written cannot be used.
    """
    value = os.environ.get(VARIABLE)
    if value is None:
        path = Path(FILE)
        return _parsed(_read(path), str(path)) if path.is_file() else {}
    text = value.strip()
    if not text:
        return {}
    if text.startswith("{"):
        return _parsed(text, VARIABLE)
    try:
        content = _read(Path(text))
    except OSError as error:
        raise _refusal(VARIABLE, f"{text!r}, a file that cannot be read ({error.strerror})") from error
    return _parsed(content, text)


def _read(path: Path) -> bytes:
    if not path.is_file():  # a pipe or a device may never end
        raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
    return path.read_bytes()


def _parsed(text: str | bytes, source: str) -> dict[str, dict[str, Any]]:
    try:
        sections = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _refusal(source, f"no JSON ({error})") from error
    if not isinstance(sections, dict) or not all(isinstance(section, dict) for section in sections.values()):
        raise _refusal(source, repr(sections))
    unknown = sorted(set(sections) - set(SECTIONS))
    if unknown:
        raise _refusal(source, f"the sections {unknown}")
    return sections


def _refusal(source: str, got: str) -> Exception:
    from captum_lipschitz.errors import InvalidInputError  # imports torch

    return InvalidInputError(
        f"{source}: expected a JSON object, or the path of a file with one, whose keys are any of {list(SECTIONS)} and "
        f"whose values are their settings, got {got}"
    )
