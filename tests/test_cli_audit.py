"""``captum-lipschitz audit``: files, a kill and what follows it, names that are not to be told, refusals."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from captum_lipschitz.cli import main

MODELS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 2)
    )
"""
METHODS = ("--methods", "adversarial", "saliency", "random")
COMMAND = ("audit", "--model", "cli_audited:small", "--effort", "fast", "--device", "cpu", "--threads", "1", *METHODS)
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command on ``images/``, eight pictures in two class folders; exit status, output, error output."""
    (tmp_path / "cli_audited.py").write_text(MODELS)
    draws = np.random.default_rng(0)
    for i in range(8):
        folder = tmp_path / "images" / ("healthy", "ill")[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(folder / f"patient-{i}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("captum_lipschitz.metrics.fidelity.optional.find_spec", lambda _: None)  # slow to import

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main([*COMMAND, "--data", "images", "--output", "out", *arguments])
        except SystemExit as error:  # argparse's own
            status = int(error.code or 0)
        captured = capsys.readouterr()
        return status, captured.out, captured.err

    return run


def _figures(folder: Path) -> dict[str, Any]:
    """``report.json`` without what differs from run to run."""
    content: dict[str, Any] = json.loads((folder / "report.json").read_text())
    assert content.pop("seconds") > 0
    return content


def test_the_report_and_the_files_beside_it(command: Command) -> None:
    status, output, progress = command()
    assert status == 0
    assert "The report is out/report.html" in output
    assert "accuracy" in output
    assert "Audit: 100%" in progress
    assert "left, " in progress
    files = {path.name for path in Path("out").iterdir() if path.is_file()}
    assert {"report.html", "report.json", "invalidation.csv", "fidelity.csv", "values.csv"} <= files
    page = Path("out/report.html").read_text()
    assert "patient-0.png" in page
    assert "healthy" in page


def test_without_images_no_file_is_named_and_no_picture_shown(command: Command) -> None:
    command()  # with images first: what is left of that must not stay
    assert command("--no-images")[0] == 0
    for path in Path("out").rglob("*"):
        assert path.is_dir() or b"patient-" not in path.read_bytes(), path
    (model,) = _figures(Path("out"))["models"]
    assert all(image["original"] is None for image in model["images"])
    assert model["images"][3]["name"] == "image 3"


def test_names_of_classes_from_words_and_from_a_file(command: Command) -> None:
    assert command("--class-names", "<b>no</b>", "yes")[0] == 0
    assert "<b>no</b>" not in Path("out/report.html").read_text()
    Path("names.txt").write_text("well\nunwell\n")
    assert command("--class-names", "names.txt")[0] == 0
    assert {image["label"] for image in _figures(Path("out"))["models"][0]["images"]} == {"well", "unwell"}


KILLED = """
import os, sys
import captum_lipschitz.metrics.fidelity.optional as optional
from captum_lipschitz.cli import main
optional.find_spec = lambda _: None
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_run_goes_on_with_the_same_figures(command: Command) -> None:
    assert command("--chunk-size", "2", "--output", "whole")[0] == 0
    arguments = [*COMMAND, "--data", "images", "--output", "out", "--chunk-size", "2"]
    steps = Path("out/first/steps")
    with subprocess.Popen([sys.executable, "-c", KILLED, *arguments], stderr=subprocess.DEVNULL) as child:
        while child.poll() is None and (not steps.is_dir() or len(list(steps.glob("*.step"))) < 5):
            time.sleep(0.005)
        child.send_signal(signal.SIGKILL)
    assert child.returncode == -signal.SIGKILL
    done = {path: path.stat().st_mtime_ns for path in steps.glob("*.step")}
    assert 5 <= len(done) < len(list(Path("whole/first/steps").glob("*.step")))
    assert not Path("out/report.html").exists()
    assert command("--chunk-size", "2")[0] == 0
    assert {path: path.stat().st_mtime_ns for path in done} == done  # nothing was done again
    assert _figures(Path("out")) == _figures(Path("whole"))
    for name in ("values.csv", "fidelity.csv", "findings.csv"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_other_settings_are_refused_and_restart_obeys(command: Command) -> None:
    command("--limit", "2")
    status, _, errors = command("--limit", "2", "--seed", "3")
    assert status == 1
    assert "holds a run with other settings: seed (0, now 3)" in errors
    assert command("--limit", "2", "--seed", "3", "--restart")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--methods", "salience"), 2, "methods: expected some of"),
        (("--rho", "0"), 2, "rho: expected a positive size"),
        (("--limit", "0"), 2, "limit: expected at least 1"),
        (("--effort", "heroic"), 2, "invalid choice"),
        (("--data", "absent.npz"), 1, "data: expected a folder of class folders or an .npz file"),
        (("--model", "cli_audited:none"), 1, "model: 'cli_audited' has no 'none'"),
        (("--class-names", "absent.txt"), 1, "class_names: absent.txt cannot be read"),
    ],
)
def test_wrong_usage(command: Command, arguments: tuple[str, ...], status: int, message: str) -> None:
    found, _, errors = command(*arguments)
    assert found == status
    assert message in errors
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("made", "weights"), [("PreActResNet44", "robust"), ("PreActResNet44.with_relu", "standard")])
def test_the_authors_networks_by_name(command: Command, data_folder: Path, made: str, weights: str) -> None:
    status, output, _ = command(
        "--model", f"captum_lipschitz.models:{made}", "--methods", "saliency", "--limit", "2",
        "--weights", str(data_folder / "authors-cifar10" / f"resnet44-{weights}.safetensors"),
        "--data", str(data_folder / "cifar10_subset.npz"),
    )  # fmt: skip
    assert status == 0
    assert f"{made}, resnet44-{weights}: accuracy 1" in output
    assert Path("out/report.html").stat().st_size > 1000
