"""Several processes: figures of one, folders shared or not, a death noticed and finished work kept."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError
from captum_lipschitz.measure.machine import _repeatable_gpu, pick_device, repeatable
from captum_lipschitz.measure.processes import Processes, ProcessLostError, joined

MODEL = """
import os, time, torch
from torch import nn

class Slow(nn.Sequential):
    def forward(self, images):
        time.sleep(float(os.environ.get("PAUSE", "0")))
        return super().forward(images)

def network():
    torch.manual_seed(0)
    return Slow(nn.Conv2d(3, 8, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(8 * 16 * 16, 4))
"""


class _Signs:
    """The store, without other processes."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def set(self, key: str, value: str) -> None:
        self.values[key] = value.encode()

    def get(self, key: str) -> bytes:
        return self.values[key]

    def check(self, keys: list[str]) -> bool:
        return all(key in self.values for key in keys)


def test_one_process_needs_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with joined(1.0) as alone:
        alone.meet("anywhere")
        assert alone.exchange("a", 3) == [3]
        assert alone.gather("b", 4) == [4]
        assert (alone.rank, alone.size, alone.local_rank) == (0, 1, 0)
    assert not torch.distributed.is_initialized()


def test_incomplete_environments_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InvalidInputError, match="processes: expected torchrun's environment variables"), joined(1.0):
        pass


def test_a_silent_process_is_given_up() -> None:
    signs = _Signs()
    waiting = Processes(0, 2, 0, 0.3, signs)
    signs.set("captum_lipschitz/beat/1", "5")
    began = time.monotonic()
    with pytest.raises(
        ProcessLostError, match=r"process 1 of 2 gave no sign of life for 0\.3 s; finished chunks are kept"
    ):
        waiting.meet("done")
    assert 0.3 <= time.monotonic() - began < 5
    assert issubclass(ProcessLostError, CaptumLipschitzError)
    assert issubclass(ProcessLostError, ConnectionError)


def test_a_failed_process_is_not_waited_for() -> None:
    signs = _Signs()
    Processes(1, 2, 1, 300.0, signs).failed(ValueError("a damaged image"))
    with pytest.raises(ProcessLostError, match=r"process 1 of 2 failed \(ValueError: a damaged image\)"):
        Processes(0, 2, 0, 300.0, signs).meet("done")


def test_a_store_that_is_gone_is_said() -> None:
    class Gone(_Signs):
        def set(self, key: str, value: str) -> None:
            raise RuntimeError("Broken pipe")

    with pytest.raises(ProcessLostError, match=r"keeps the others together is gone \(Broken pipe\)"):
        Processes(1, 2, 1, 1.0, Gone()).meet("done")


def test_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", 3) == torch.device("cpu")
    with pytest.raises(InvalidInputError, match="device: expected one that torch can use here, got 'abacus'"):
        pick_device("abacus", 0)
    taken: list[str] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "zeros", lambda _, device: taken.append(device) or torch.empty(1))
    for name, local_rank in (("auto", 0), ("cuda", 1), ("cuda", 2), ("cuda:1", 0)):
        pick_device(name, local_rank)
    assert taken == ["cuda:0", "cuda:1", "cuda:0", "cuda:1"]


def test_settings_of_torch_are_restored() -> None:
    before = torch.get_num_threads(), torch.get_rng_state()
    with repeatable(torch.device("cpu"), before[0] + 1):
        assert torch.get_num_threads() == before[0] + 1
        torch.manual_seed(5)
    assert torch.get_num_threads() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])


@pytest.mark.parametrize("allowed", [True, False])
def test_convolutions_are_of_float32_inside(monkeypatch: pytest.MonkeyPatch, allowed: bool) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", allowed)
    with _repeatable_gpu(used=True):
        assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.deterministic
    assert torch.backends.cudnn.allow_tf32 == allowed
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (44, 3, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", images=images, labels=draws.integers(0, 4, 44))
    (tmp_path / "conv.py").write_text(MODEL)
    return tmp_path


def _command(output: str, *arguments: str) -> list[str]:
    command = ["-m", "captum_lipschitz", "ara", "--model", "conv:network", "--data", "data.npz", "--chunk-size", "8"]
    return [*command, "--device", "cpu", "--output", output, *arguments]


def _run(folder: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _by_hand(folder: Path, port: int, rank: int, command: list[str], **others: str) -> subprocess.Popen[str]:
    """A process as torchrun starts it on a machine of its own."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "RANK": str(rank), "WORLD_SIZE": "2"}
    return subprocess.Popen(
        [sys.executable, *command],
        cwd=folder,
        env={**os.environ, **place, "LOCAL_RANK": "0", **others},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        port: int = asked.getsockname()[1]
        return port


def _distances(folder: Path, output: str) -> bytes:
    return (folder / output / "distances.csv").read_bytes()


@pytest.mark.slow
def test_torchrun_gives_the_figures_of_one_process(folder: Path) -> None:
    alone = _run(folder, sys.executable, *_command("alone"))
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    together = _run(folder, *torchrun, *_command("together"))
    assert together == alone
    assert _distances(folder, "together") == _distances(folder, "alone")
    # One process goes on from what two left.
    for index in (1, 4):
        (folder / "together" / "chunks" / f"{index:06d}.json").unlink()
    (folder / "together" / "distances.csv").unlink()
    assert _run(folder, sys.executable, *_command("together")) == alone
    assert _distances(folder, "together") == _distances(folder, "alone")


@pytest.mark.slow
def test_two_runs_at_once_in_one_folder_do_no_harm(folder: Path) -> None:
    alone = _run(folder, sys.executable, *_command("alone"))
    both = [
        subprocess.Popen([sys.executable, *_command("out")], cwd=folder, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    assert [process.communicate(timeout=300)[0] for process in both] == [alone, alone]
    assert _distances(folder, "out") == _distances(folder, "alone")
    assert list(folder.rglob("*.part")) == []


@pytest.mark.slow
def test_machines_that_share_no_folder(folder: Path) -> None:
    alone = _run(folder, sys.executable, *_command("alone"))
    port = _free_port()
    both = [_by_hand(folder, port, rank, _command(f"machine{rank}")) for rank in (0, 1)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert outputs[0][0] == alone
    assert _distances(folder, "machine0") == _distances(folder, "alone")
    assert [len(list((folder / f"machine{rank}" / "chunks").iterdir())) for rank in (0, 1)] == [3, 3]
    assert not (folder / "machine1" / "ara.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("dying", [0, 1])
def test_a_death_is_noticed_and_finished_chunks_are_kept(folder: Path, dying: int) -> None:
    port, command = _free_port(), _command("out", "--timeout", "20")
    slow = [{"PAUSE": "0.4"} if rank == dying else {} for rank in (0, 1)]
    both = [_by_hand(folder, port, rank, command, **slow[rank]) for rank in (0, 1)]
    began = time.monotonic()
    while len(list(folder.glob("out/chunks/0*.json"))) < 3:  # the quick one's
        assert time.monotonic() - began < 120
        time.sleep(0.05)
    both[dying].kill()
    killed = time.monotonic()
    _, errors = both[1 - dying].communicate(timeout=120)
    assert both[1 - dying].returncode == 1
    assert time.monotonic() - killed < 60
    assert "captum-lipschitz: processes: " in errors
    assert "finished chunks are kept" in errors
    both[dying].communicate()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("out/chunks/0*.json")}
    _run(folder, sys.executable, *_command("out"))
    _run(folder, sys.executable, *_command("alone"))
    assert _distances(folder, "out") == _distances(folder, "alone")
    assert all(path.stat().st_mtime_ns == before for path, before in kept.items())
