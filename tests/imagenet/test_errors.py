"""What goes wrong in a lab: each a clear error, the last good checkpoint as it was."""

from __future__ import annotations

import errno
import json
import math
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from image_folders import IMAGENET
from imagenet_training import checkpoint
from imagenet_training.options import parse_training
from imagenet_training.recipe import Recipe
from imagenet_training.run import Run, start
from imagenet_training.training import Training

from captum_lipschitz.errors import InvalidInputError

RECIPE = Recipe(
    model="shufflenet_v2_x0_5",
    learning_rate=0.01,
    initial_strength=1e-4,
    resolution=64,
    resize=64,
    epochs=2,
    warmup_epochs=0,
    batch_size=8,
    precision="float32",
    target_loss=1.0,
)


def _run(folder: Path, data: Path, **options: Any) -> Run:
    return Run(output=folder, data=data, **{"workers": 0, "threads": 1, "ara_images": 0, "log_every": 1, **options})


def _message(capsys: pytest.CaptureFixture[str]) -> str:
    return capsys.readouterr().err


@pytest.fixture
def folder(pictures_folder: Path, tmp_path: Path) -> Path:
    """A copy of the images that may be spoilt."""
    return Path(shutil.copytree(pictures_folder, tmp_path / "data"))


def test_a_corrupt_image_is_named(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = (folder / "train" / "bee" / "3.jpg").read_bytes()
    (folder / "train" / "bee" / "3.jpg").write_bytes(whole[: len(whole) // 2])
    assert start(RECIPE, _run(tmp_path / "out", folder)) == 1
    assert "bee/3.jpg cannot be decoded" in _message(capsys)


def test_a_corrupt_image_is_named_by_a_worker_too(folder: Path, tmp_path: Path) -> None:
    (folder / "train" / "ant" / "0.jpg").write_bytes(b"no image")
    command = [sys.executable, str(IMAGENET / "train.py"), "--config", str(IMAGENET / "configs" / "tiny_plain.yaml")]
    command += ["--set", "batch_size=8", "epochs=2", "--data", str(folder), "--output", str(tmp_path / "out")]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("train.py: data: ")
    assert "ant/0.jpg cannot be decoded" in last


def test_a_class_folder_that_is_missing_on_one_side(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(folder / "val" / "cat")
    assert start(RECIPE, _run(tmp_path / "out", folder)) == 1
    assert "expected the same class folders in train and val, got ['cat'] in one alone" in _message(capsys)


def test_a_full_disk_leaves_the_last_checkpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert start(RECIPE, _run(tmp_path / "out", folder, stop_after=2)) == 0
    kept = _contents(tmp_path / "out" / "checkpoints")
    save = checkpoint.save

    def full(*arguments: Any, **keywords: Any) -> None:
        save(*arguments, **keywords)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "save", full)
    assert start(RECIPE, _run(tmp_path / "out", folder, resume=True)) == 1
    told = _message(capsys)
    assert "checkpoint step-00000003 cannot be written" in told
    assert "No space left on device" in told
    assert "the last good one is step-00000002" in told
    assert _contents(tmp_path / "out" / "checkpoints") == kept
    monkeypatch.undo()
    assert start(RECIPE, _run(tmp_path / "out", folder, resume=True)) == 0


def test_a_checkpoint_that_was_spoilt_is_named(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(RECIPE, _run(tmp_path / "out", folder, stop_after=2)) == 0
    data = next((tmp_path / "out" / "checkpoints" / "step-00000002").glob("*.distcp"))
    data.write_bytes(data.read_bytes()[:100])
    assert start(RECIPE, _run(tmp_path / "out", folder, resume=True)) == 1
    assert "checkpoint step-00000002 cannot be read" in _message(capsys)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda run, recipe: (run(), recipe), "expected a folder without checkpoints, or --resume"),
        (lambda run, _: (run(resume=True), _other()), "learning_rate was 0.01, is 0.25"),
        (lambda run, recipe: (run(data=None, resume=True), recipe), "data: expected a folder, or --synthetic"),
    ],
)
def test_going_on_where_one_must_not(
    change: Callable[..., Any], words: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert start(RECIPE, _run(tmp_path / "out", folder, stop_after=1)) == 0
    given = {"folder": tmp_path / "out", "data": folder}
    run, recipe = change(lambda **options: _run(**{**given, **options}), RECIPE)
    assert start(recipe, run) == 1
    assert words in _message(capsys)


def test_other_files_are_other_data(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert start(RECIPE, _run(tmp_path / "out", folder, stop_after=1)) == 0
    (folder / "train" / "bee" / "3.jpg").rename(folder / "train" / "bee" / "another.jpg")
    assert start(RECIPE, _run(tmp_path / "out", folder, resume=True)) == 1
    told = _message(capsys)
    assert "expected the recipe and the data that the run was begun with; files was" in told
    (folder / "train" / "bee" / "another.jpg").unlink()
    assert start(RECIPE, _run(tmp_path / "out", folder, resume=True)) == 1
    assert "images was 24, is 23" in _message(capsys)


def test_a_network_that_is_not_finite_replaces_no_checkpoint(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    take_step = Training.take_step

    def spoilt(training: Training, *batch: Any) -> Any:
        figures = take_step(training, *batch)
        if training.step == 4:  # its loss was still a number
            next(training.network.parameters()).data[0] = float("nan")
        return figures

    monkeypatch.setattr(Training, "take_step", spoilt)
    assert start(RECIPE, _run(tmp_path / "out", folder, checkpoint_every=2, keep=1, log_every=100)) == 1
    assert "step 4: logits, loss or weights are not finite" in _message(capsys)
    assert [path.name for path in (tmp_path / "out" / "checkpoints").iterdir()] == ["step-00000002"]


def test_activations_must_be_round_when_the_run_ends() -> None:
    with pytest.raises(InvalidInputError, match=r"rounding_epochs: expected at most epochs, 2, got 2\.5"):
        Recipe(**{**RECIPE.__dict__, "rounding_epochs": 2.5})


def _other() -> Recipe:
    return Recipe(**{**RECIPE.__dict__, "learning_rate": 0.25})


def test_two_runs_cannot_write_to_one_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    (tmp_path / "out").mkdir()
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert start(RECIPE, _run(tmp_path / "out", folder)) == 1
    assert "another run is still writing to" in _message(capsys)


def test_a_port_that_is_in_use(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for name, value in {"WORLD_SIZE": "1", "RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}.items():
            monkeypatch.setenv(name, value)
        assert start(RECIPE, _run(tmp_path / "out", folder)) == 1
    assert f"the processes cannot meet at 127.0.0.1:{port}" in _message(capsys)


@pytest.mark.parametrize("given", [{"LOCAL_WORLD_SIZE": "3"}, {"LOCAL_RANK": "2"}], ids=["torchrun", "another"])
def test_more_processes_than_gpus(
    given: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name, value in {"WORLD_SIZE": "3", "RANK": "2", **given}.items():
        monkeypatch.setenv(name, value)
    assert start(RECIPE, _run(tmp_path / "out", tmp_path)) == 1
    told = _message(capsys)
    assert "expected at most as many processes on a machine as it has GPUs, 2 that torch can use, got 3" in told
    assert "--nproc-per-node 2" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("argument", "value", "least"),
    [("--workers", "-1", 0), ("--ara-images", "-1", 0), ("--keep", "0", 1), ("--workers", "few", 0)],
)
def test_numbers_that_cannot_be(
    argument: str, value: str, least: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = str(IMAGENET / "configs" / "tiny_plain.yaml")
    with pytest.raises(SystemExit, match="2"):
        parse_training(None, ["--config", config, "--output", str(tmp_path / "out"), argument, value])
    told = f"argument {argument}: expected a whole number of at least {least}, got '{value}'"
    assert told in capsys.readouterr().err


def test_a_loss_that_diverges_is_said_to(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = Recipe(**{**RECIPE.__dict__, "learning_rate": 1e30})
    assert start(recipe, _run(tmp_path / "out", folder)) == 1
    assert "logits, loss or weights are not finite; take a smaller learning_rate" in _message(capsys)


@pytest.mark.whole_run
def test_the_results_are_those_of_the_weights_written(folder: Path, tmp_path: Path) -> None:
    assert start(RECIPE, _run(tmp_path / "out", folder, ara_images=4)) == 0
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results["validation_images"] == 15
    assert results["quick_ara_images"] == 4
    measured = [sys.executable, str(IMAGENET / "evaluate.py"), str(tmp_path / "out"), "--data", str(folder)]
    done = subprocess.run([*measured, "--effort", "fast"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "evaluation" / "evaluation.json").read_text())
    assert found["images"] == 15
    assert found["clean_accuracy"] == pytest.approx(results["validation_accuracy"])
    low, area, high = (
        math.inf if value is None else value  # a network that hardly learned may resist on some images
        for value in (found["attack"]["interval"][0], found["attack"]["area"], found["attack"]["interval"][1])
    )
    assert low <= area <= high


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
