"""Files that are whole or not there: written beside their place, then moved into it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import nn


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A path to write to; what was written takes ``path``'s place at the end, or is removed if an error ends it."""
    temporary = path.with_name(f".{path.name}.part")
    try:
        yield temporary
        os.replace(temporary, path)  # noqa: PTH105 (atomic, and says so)
    finally:
        temporary.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON, refusing NaN and infinity, which other readers would not take."""
    with replaced(path) as temporary:
        temporary.write_text(json.dumps(content, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def write_network(path: Path, model: nn.Module) -> None:
    """Write a network's state as safetensors."""
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    with replaced(path) as temporary:
        save_file(state, temporary)
