"""JSON files that are whole or not there, whatever kills the process or the machine meanwhile."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from captum_lipschitz._files import write_whole


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON; NaN and infinity, which other readers would not take, raise ``ValueError``."""
    write_whole(path, as_json(content))


def as_json(content: Mapping[str, Any]) -> bytes:
    """JSON in UTF-8, one entry a line, the same bytes for equal content."""
    return (json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
