"""Killed with SIGKILL, at random moments and at every write, and started again: the figures of an undisturbed run.

Runs are real processes, forked from one that has imported everything, so that each start costs a fraction of a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.slow

MODEL = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), nn.Flatten(),
        nn.Linear(16 * 16 * 16, 4),
    )
"""

SERVER = """
import json, os, random, signal, sys, time
import torch, matplotlib.figure, matplotlib.pyplot
from captum_lipschitz.cli import main
from captum_lipschitz.plugin import plugins
import captum_lipschitz.measure, captum_lipschitz.metrics.probes

plugins()
COMMAND = ["ara", "--model", "conv:network", "--data", "data.npz", "--device", "cpu", "--chance", "0", *sys.argv[2:]]


def start(output, before=lambda: None):
    child = os.fork()
    if child == 0:
        sink = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(sink, 1), os.dup2(sink, 2)
        before()
        os._exit(main([*COMMAND, "--output", output]))
    return child


def ended(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def chunks():
    return len(os.listdir("killed/chunks")) if os.path.isdir("killed/chunks") else 0


def random_moments(seconds):
    draws, statuses = random.Random(0), []
    for _ in range(10):
        wanted = chunks() + draws.randint(0, 3)  # by work, not by the clock: ten lives together are shorter than it
        child = start("killed")
        alive = lambda: os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        while chunks() < wanted and alive():
            time.sleep(0.001)
        time.sleep(draws.uniform(0, seconds / 60))  # somewhere within a chunk
        os.kill(child, signal.SIGKILL)
        statuses.append((ended(child), chunks()))
    return statuses


def every_write(_):
    def dying(at):
        calls = []
        def patched(function):
            def call(*arguments):
                calls.append(function)
                if len(calls) == at:
                    os.kill(os.getpid(), signal.SIGKILL)
                return function(*arguments)
            return call
        def before():
            for name in ("fsync", "link", "replace"):
                setattr(os, name, patched(getattr(os, name)))
        return before

    statuses = []
    while not statuses or statuses[-1][0]:
        # Each beginning from nothing: the run that dies at its n-th write, and the one after it.
        output = f"killed{len(statuses)}"
        statuses.append((ended(start(output, dying(len(statuses) + 1))), ended(start(output))))
    return statuses


began = time.monotonic()
whole = ended(start("whole"))
statuses = {"random": random_moments, "writes": every_write}[sys.argv[1]](time.monotonic() - began)
print(json.dumps({"whole": whole, "statuses": statuses, "last": ended(start("killed"))}))
"""


def _serve(folder: Path, kind: str, images: int, *arguments: str) -> dict[str, Any]:
    draws = np.random.default_rng(0)
    pixels = draws.integers(0, 256, (images, 3, 16, 16), dtype=np.uint8)
    np.savez(folder / "data.npz", images=pixels, labels=draws.integers(0, 4, images))
    (folder / "conv.py").write_text(MODEL)
    done = subprocess.run(
        [sys.executable, "-c", SERVER, kind, *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _assert_same(folder: Path, name: str) -> None:
    whole, killed = (json.loads((folder / n / "ara.json").read_text()) for n in ("whole", name))
    for content in (whole, killed):
        assert content.pop("seconds") > 0
        content.pop("seconds_of_this_run")
    assert whole == killed
    for file in ("distances.csv", "curve.png"):
        assert (folder / "whole" / file).read_bytes() == (folder / name / file).read_bytes()


def test_ten_kills_at_random_moments(tmp_path: Path) -> None:
    answer = _serve(tmp_path, "random", 240, "--chunk-size", "4", "--effort", "thorough")
    assert answer["whole"] == answer["last"] == 0, (tmp_path / "log").read_text()
    assert [status for status, _ in answer["statuses"]] == [-9] * 10  # each was still at work
    counts = [chunks for _, chunks in answer["statuses"]]
    assert 0 < counts[-1] < 60, counts  # and in the middle of it
    _assert_same(tmp_path, "killed")


def test_a_kill_at_every_write(tmp_path: Path) -> None:
    answer = _serve(tmp_path, "writes", 6, "--chunk-size", "3", "--effort", "fast")
    first = [status for status, _ in answer["statuses"]]
    assert len(first) > 15
    assert first[:-1] == [-9] * (len(first) - 1)
    assert all(second == 0 for _, second in answer["statuses"]), (tmp_path / "log").read_text()
    for i in range(len(first)):
        _assert_same(tmp_path, f"killed{i}")
