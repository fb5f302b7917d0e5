"""A real SIGINT to a real process of ``captum-lipschitz ara``: status 130, and what was finished counts."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MODEL = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.SiLU(), nn.Flatten(), nn.Linear(16 * 14 * 14, 4))
"""


def _command(folder: Path, output: str) -> list[str]:
    options = ["--data", "data.npz", "--device", "cpu", "--chunk-size", "2", "--effort", "thorough", "--chance", "0"]
    return [sys.executable, "-m", "captum_lipschitz", "ara", "--model", "conv:network", *options, "--output", output]


def test_ctrl_c(tmp_path: Path) -> None:
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (40, 3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=pixels, labels=draws.integers(0, 4, 40))
    (tmp_path / "conv.py").write_text(MODEL)
    running = subprocess.Popen(_command(tmp_path, "out"), cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("out/chunks/*.json")) and running.poll() is None:
        time.sleep(0.01)
    running.send_signal(signal.SIGINT)
    _, told = running.communicate(timeout=120)
    assert running.returncode == 130, told
    assert told.endswith("captum-lipschitz: interrupted\n")
    assert "Traceback" not in told
    kept = {path.name: path.read_bytes() for path in tmp_path.glob("out/chunks/*.json")}
    assert 1 <= len(kept) < 20
    assert not (tmp_path / "out" / "ara.json").exists()
    for output in ("out", "whole"):
        subprocess.run(_command(tmp_path, output), cwd=tmp_path, check=True, capture_output=True)
    for name, content in kept.items():
        assert (tmp_path / "out" / "chunks" / name).read_bytes() == content
    found, whole = (json.loads((tmp_path / name / "ara.json").read_text()) for name in ("out", "whole"))
    assert found["area"] == whole["area"]
