"""When a run ends by itself: asked to, or its launcher gone; not when the shell that started it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from image_folders import IMAGENET
from imagenet_training import processes
from imagenet_training.processes import StopRequest
from imagenet_training.recipe import Recipe
from imagenet_training.run import Run, start
from imagenet_training.training import Training

SMALL = Recipe(
    model="shufflenet_v2_x0_5", resolution=32, resize=36, epochs=2, warmup_epochs=0, batch_size=8, learning_rate=0.01,
    precision="float32",
)  # fmt: skip


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("under_torchrun", [True, False])
def test_only_torchruns_end_is_a_reason_to_stop(under_torchrun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if under_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    else:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with StopRequest() as stop:
        monkeypatch.setattr(os, "getppid", lambda: 1)  # what a process sees whose parent has ended
        assert stop.asked == under_torchrun


def test_a_file_asks_and_an_old_one_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "_LOOK_EVERY", 0.0)
    file = tmp_path / "stop"
    file.touch()
    with StopRequest(file) as stop:
        assert not stop.asked
        file.touch()
        assert stop.asked


def _ended(folder: Path, data: Path, monkeypatch: pytest.MonkeyPatch, at_first_step: Callable[[], None]) -> int:
    """The exit status of a run in whose first step something happens; it writes its log after 50 steps."""
    take_step = Training.take_step

    def step(training: Training, *batch: Any) -> Any:
        figures = take_step(training, *batch)
        if training.step == 1:
            at_first_step()
        return figures

    monkeypatch.setattr(Training, "take_step", step)
    return start(SMALL, Run(output=folder, data=data, workers=0, threads=1, ara_images=0))


def test_a_run_stops_after_the_step_in_which_it_was_asked_to(
    pictures_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended(tmp_path, pictures_folder, monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM)) == 0
    assert "stopped after step 1 of 6" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_an_interrupted_run_says_how_to_go_on(
    pictures_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _ended(tmp_path, pictures_folder, monkeypatch, lambda: signal.raise_signal(signal.SIGINT)) == 130
    assert "interrupted; --resume goes on from the last checkpoint" in capsys.readouterr().err


# What a large cluster has, for slurm.sh: a run that ends when the stop file is there, a record of what is queued again.
_SRUN = """#!/bin/sh
echo "$@" > "$OUTPUT/starting" && mv "$OUTPUT/starting" "$OUTPUT/started"
for _ in $(seq 2400); do
    [ -e "$OUTPUT/stop" ] && exit {status}
    sleep 0.05
done
exit 9
"""
_SCONTROL = """#!/bin/sh
if [ "$1" = show ]; then echo node7; seq 200000; else echo "$@" > "$OUTPUT/queued"; fi
"""


def _job(folder: Path, status: int) -> subprocess.Popen[bytes]:
    for name, text in {"srun": _SRUN.format(status=status), "scontrol": _SCONTROL}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    settings = {
        "PATH": f"{folder}:{os.environ['PATH']}", "OUTPUT": str(folder / "out"), "IMAGENET": str(folder),
        "SLURM_JOB_NODELIST": "node[7-8]", "SLURM_NNODES": "2", "SLURM_JOB_ID": "41", "SLURM_CPUS_PER_TASK": "64",
    }  # fmt: skip
    return subprocess.Popen(["/bin/bash", str(IMAGENET / "slurm.sh")], env=settings)


@pytest.mark.parametrize(("status", "queued"), [(0, True), (1, False)])
def test_a_job_that_runs_out_of_time_saves_and_is_queued_again(status: int, queued: bool, tmp_path: Path) -> None:
    job, out = _job(tmp_path, status), tmp_path / "out"
    began = time.monotonic()
    while not (out / "started").exists():
        assert job.poll() is None, "ended before it started the run"
        assert time.monotonic() - began < 120  # a busy machine has needed more than eight seconds
        time.sleep(0.02)
    assert "--rdzv-endpoint node7:29500" in (out / "started").read_text()
    job.send_signal(signal.SIGUSR1)
    assert job.wait(timeout=120) == status
    assert (out / "queued").exists() == queued
    if queued:
        assert (out / "queued").read_text() == "requeue 41\n"
