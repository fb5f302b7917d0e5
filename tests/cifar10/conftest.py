"""The scripts' package, importable as when a script is run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

CIFAR10 = Path(__file__).resolve().parents[2] / "examples" / "cifar10"
sys.path.insert(0, str(CIFAR10))


@pytest.fixture(scope="session")
def cifar10_scripts() -> Path:
    """Where the scripts are."""
    return CIFAR10
