"""Killed at any moment and started again: the same weights, to the bit, as the run that was left alone."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from image_folders import IMAGENET
from imagenet_training.recipe import Recipe
from imagenet_training.run import Run, start
from safetensors.torch import load_file

COMMON = {
    "model": "shufflenet_v2_x0_5", "resolution": 64, "resize": 64, "epochs": 2, "warmup_epochs": 1, "batch_size": 8,
    "precision": "float32", "target_loss": 0.7, "initial_strength": 1e-4, "learning_rate": 0.01,
}  # fmt: skip
RECIPES = {
    "robust": Recipe(**COMMON, activation="half_huber", every=2),
    "adversarial": Recipe(**COMMON, adversarial=0.5),
    "mixed, AdamW": Recipe(
        **{**COMMON, "model": "mnasnet0_5", "optimizer": "adamw", "learning_rate": 1e-3}, mixup=0.2, cutmix=1.0
    ),
    "fine-tuned": Recipe(**COMMON, rounding_epochs=1.5),
}


def _train(recipe: Recipe, folder: Path, data: Path, *, stops: tuple[int, ...] = (), workers: int = 0) -> None:
    common = {"output": folder, "data": data, "threads": 1, "ara_images": 0, "log_every": 1, "checkpoint_every": 2}
    for stop in (*stops, None):
        run = Run(**common, workers=workers, stop_after=stop, resume=True)  # type: ignore[arg-type]
        assert start(recipe, run) == 0
        workers += 1


def _assert_same(first: Path, second: Path) -> None:
    one, other = (load_file(folder / "weights.safetensors") for folder in (first, second))
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.equal(other[name]), name


@pytest.mark.parametrize("name", RECIPES)
def test_stopped_runs_end_with_the_weights_of_one_left_alone(name: str, pictures_folder: Path, tmp_path: Path) -> None:
    recipe = RECIPES[name]
    _train(recipe, tmp_path / "alone", pictures_folder)
    _train(recipe, tmp_path / "stopped", pictures_folder, stops=(1, 3))  # with 0 to 2 workers; an epoch has three steps
    _assert_same(tmp_path / "alone", tmp_path / "stopped")


def _start(folder: Path, data: Path, *, processes: int = 2, sharding: str = "ddp") -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    settings = [
        "model=shufflenet_v2_x0_5",
        "learning_rate=0.01",
        "initial_strength=1.0e-4",
        "resolution=32",
        "resize=36",
        "epochs=3",
        "batch_size=8",
        "precision=float32",
        f"sharding={sharding}",
    ]
    command = [
        *torchrun,
        str(IMAGENET / "train.py"),
        "--config",
        str(IMAGENET / "configs" / "tiny_robust.yaml"),
        "--set",
    ]
    command += [*settings, "--data", str(data), "--output", str(folder), "--resume", "--workers", "1", "--threads", "1"]
    command += ["--ara-images", "0", "--log-every", "1", "--checkpoint-every", "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _finished(process: subprocess.Popen[str]) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def _kill_after(process: subprocess.Popen[str], log: Path, lines: int) -> None:
    """SIGKILL torchrun and all below it, once the log is so long."""
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install psutil")
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < lines):
        time.sleep(0.02)
    tree = psutil.Process(process.pid)
    for one in [tree, *tree.children(recursive=True)]:
        one.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.whole_run
@pytest.mark.parametrize("sharding", ["ddp", "fsdp2"])
def test_two_processes_killed_twice(sharding: str, pictures_folder: Path, tmp_path: Path) -> None:
    _finished(_start(tmp_path / "alone", pictures_folder, sharding=sharding))
    killed = tmp_path / "killed"
    for lines in (3, 9):  # in the middle of the first and of the second epoch of six steps
        _kill_after(_start(killed, pictures_folder, sharding=sharding), killed / "log.jsonl", lines)
        assert not (killed / "weights.safetensors").exists()
    assert "going on from step-000000" in _finished(_start(killed, pictures_folder, sharding=sharding))
    _assert_same(tmp_path / "alone", killed)


@pytest.mark.whole_run
def test_another_number_of_processes_goes_on_and_says_what_it_changes(pictures_folder: Path, tmp_path: Path) -> None:
    process = _start(tmp_path / "out", pictures_folder)
    _kill_after(process, tmp_path / "out" / "log.jsonl", 5)
    output = _finished(_start(tmp_path / "out", pictures_folder, processes=1))
    assert "2 processes then, 1 now: each step has the same images" in output
    weights = load_file(tmp_path / "out" / "weights.safetensors")
    assert all(bool(torch.isfinite(tensor).all()) for tensor in weights.values())


@pytest.mark.whole_run
def test_one_process_that_dies_ends_the_run_and_leaves_its_checkpoints(pictures_folder: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil", reason="psutil is not installed: pip install psutil")
    process = _start(tmp_path / "out", pictures_folder)
    log = tmp_path / "out" / "log.jsonl"
    while process.poll() is None and (not log.exists() or len(log.read_text().splitlines()) < 4):
        time.sleep(0.02)
    ranks = [one for one in psutil.Process(process.pid).children() if "train.py" in " ".join(one.cmdline())]
    ranks[1].send_signal(signal.SIGKILL)
    process.communicate(timeout=120)
    assert process.returncode != 0
    assert (tmp_path / "out" / "checkpoints" / "step-00000002" / "progress.json").exists()
    _finished(_start(tmp_path / "out", pictures_folder))
