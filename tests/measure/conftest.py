"""A tiny classifier, images for it as arrays and as a folder, and the command run on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from captum_lipschitz.cli import main

MODELS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Linear(16, 5))

def function():
    return small().eval()

def random():
    torch.seed()
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 5))

def broken():
    raise RuntimeError("no such weights")

def number():
    return 3

made = small()
constant = 4
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: ``measured_models.py``, ``data.npz`` (20 images of 5 classes), ``images/`` (12 of them)."""
    (tmp_path / "measured_models.py").write_text(MODELS)
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (20, 3, 8, 8), dtype=np.uint8)
    labels = np.arange(20) % 5
    np.savez(tmp_path / "data.npz", images=images, labels=labels)
    for i in range(12):
        folder = tmp_path / "images" / f"class{labels[i]}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[i].transpose(1, 2, 0)).save(folder / f"{i:02d}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def ara(work: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``captum-lipschitz ara`` in this process with fast defaults; exit status, output, error output."""

    def run(*arguments: str, data: str = "data.npz", model: str = "measured_models:small") -> tuple[int, str, str]:
        command = ["ara", "--model", model, "--data", data, "--output", "out", "--device", "cpu", "--chunk-size", "4"]
        try:
            status = main([*command, *arguments])
        except SystemExit as error:  # argparse's own
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run
