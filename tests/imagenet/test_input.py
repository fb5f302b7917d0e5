"""The scripts around the input path: what it brings, smaller copies of the images, and what a run costs."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cost
import input_path
import numpy as np
import prepare
import pytest
from imagenet_training.pictures import Draw
from PIL import Image

RECIPE = "model: resnet18\nresolution: 24\nresize: 32\nepochs: 2\nwarmup_epochs: 0\nbatch_size: 128\n"


@pytest.fixture
def recipe(tmp_path: Path) -> str:
    (tmp_path / "recipe.yaml").write_text(RECIPE)
    return str(tmp_path / "recipe.yaml")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """A script's exit status and what it wrote."""

    def run(main: Callable[[], int], *arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["script", *map(str, arguments)])
        capsys.readouterr()
        status = main()
        return (status, *capsys.readouterr())

    return run


Run = Callable[..., tuple[int, str, str]]


def _image(path: Path, width: int, height: int, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng([width, height]).integers(0, 255, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, kind)
    return path.read_bytes()


def test_images_are_brought_to_the_short_side(run: Run, tmp_path: Path) -> None:
    sizes = {"a/wide.jpg": (120, 80), "a/tall.JPEG": (60, 121), "b/thin.png": (50, 400), "b/exact.jpg": (90, 40)}
    for name, size in sizes.items():
        _image(tmp_path / "source" / name, *size, kind="PNG" if name.endswith("png") else "JPEG")
    _image(tmp_path / "source" / "b" / "cmyk.JPEG", 80, 80, mode="CMYK")
    _image(tmp_path / "source" / "b" / "really_png.JPEG", 80, 80, mode="P", kind="PNG")
    small = _image(tmp_path / "source" / "b" / "small.jpg", 30, 70)
    assert run(prepare.main, tmp_path / "source", tmp_path / "target", "--short-side", 40, "--workers", 1)[0] == 0
    expected = {"a/wide.jpg": (60, 40), "a/tall.JPEG": (40, 81), "b/thin.png": (40, 320), "b/exact.jpg": (90, 40)}
    expected |= {"b/cmyk.JPEG": (40, 40), "b/really_png.JPEG": (40, 40), "b/small.jpg": (30, 70)}
    written = {str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*.*")}
    assert written == set(expected)
    for name, size in expected.items():
        with Image.open(tmp_path / "target" / name) as image:
            assert image.size == size, name
            assert image.mode == "RGB", name
            assert image.format == ("PNG" if name.endswith("png") else "JPEG"), name
    for name, content in (("small", small), ("exact", (tmp_path / "source" / "b" / "exact.jpg").read_bytes())):
        assert (tmp_path / "target" / "b" / f"{name}.jpg").read_bytes() == content


def test_preparing_goes_on_and_lists_what_is_corrupt(run: Run, tmp_path: Path) -> None:
    arguments = (tmp_path / "source", tmp_path / "target", "--short-side", 40, "--workers", 2)
    whole = {name: _image(tmp_path / "source" / "a" / name, 90, 80) for name in ("0.jpg", "1.jpg", "2.jpg")}
    small = _image(tmp_path / "source" / "a" / "small.jpg", 30, 30)
    for name, content in (("2.jpg", whole["2.jpg"]), ("small.jpg", small)):
        (tmp_path / "source" / "a" / name).write_bytes(content[: len(content) // 2])
    target = tmp_path / "target" / "a"
    target.mkdir(parents=True)
    (target / "0.jpg").write_bytes(b"done before")
    (target / ".1.jpg.part").write_bytes(b"killed while writing")
    status, _, errors = run(prepare.main, *arguments)
    assert status == 1
    told = re.findall(r"^prepare\.py: (.*) cannot be decoded", errors, re.MULTILINE)
    assert told == [str(tmp_path / "source" / "a" / name) for name in ("2.jpg", "small.jpg")]
    assert sorted(path.name for path in target.iterdir()) == ["0.jpg", "1.jpg"]
    assert (target / "0.jpg").read_bytes() == b"done before"
    written = (target / "1.jpg").stat().st_mtime_ns
    for name, content in (("2.jpg", whole["2.jpg"]), ("small.jpg", small)):
        (tmp_path / "source" / "a" / name).write_bytes(content)
    assert run(prepare.main, *arguments)[0] == 0
    assert sorted(path.name for path in target.iterdir()) == ["0.jpg", "1.jpg", "2.jpg", "small.jpg"]
    assert (target / "1.jpg").stat().st_mtime_ns == written


def test_preparing_on_a_full_disk_leaves_whole_files_and_goes_on(run: Run, tmp_path: Path) -> None:
    whole = {f"{i}.jpg": _image(tmp_path / "source" / "a" / f"{i}.jpg", 30, 30) for i in range(3)}
    large = tmp_path / "source" / "b" / "large.png"
    _image(large, 30, 200, kind="PNG")
    arguments = [tmp_path / "source", tmp_path / "target", "--short-side", 40, "--workers", 1]
    # No room for more than so much: the file is begun, then the write fails, as on a full disk.
    room = (large.stat().st_size - 1) // 1024
    limited = f'ulimit -f {room}; exec "$@"'
    assert max(map(len, whole.values())) < room * 1024
    command = ["bash", "-c", limited, "-", sys.executable, prepare.__file__, *map(str, arguments)]
    # Without .ci/coverage's settings: its own file would be too large as well.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"prepare.py: target: {tmp_path / 'target'} cannot be written (")
    assert "File too large" in last
    assert last.endswith("the same command goes on from them")
    assert "Traceback" not in done.stderr
    written = {path.name: path.read_bytes() for path in (tmp_path / "target").rglob("*") if path.is_file()}
    assert written == whole
    assert run(prepare.main, *arguments)[0] == 0
    assert (tmp_path / "target" / "b" / "large.png").read_bytes() == large.read_bytes()


def test_numbers_of_workers_that_cannot_be(run: Run, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for script, arguments, least in (
        (prepare, (tmp_path, tmp_path, "--short-side", 40, "--workers", 0), 1),
        (input_path, (tmp_path, "--config", "none.yaml", "--workers", -1), 0),
    ):
        with pytest.raises(SystemExit, match="2"):
            run(script.main, *arguments)
        assert f"argument --workers: expected a whole number of at least {least}, got" in capsys.readouterr().err


def test_preparing_a_folder_without_images(run: Run, tmp_path: Path) -> None:
    status, _, errors = run(prepare.main, tmp_path, tmp_path / "target", "--short-side", 40)
    assert status == 1
    assert f"source: expected images in {tmp_path}, got none" in errors


def test_cost_against_figures_worked_out_by_hand(run: Run, recipe: str) -> None:
    arguments = ("--config", recipe, "--images", 128_005, "--kib-per-image", 1024, "--efficiency", 0.5)
    # 1,000 steps of 128 in each of 2 epochs, 256,000 images; 16 images/s for each GPU, half of it beyond those measured
    status, told, _ = run(cost.main, *arguments, "--images-per-second", 64, "--gpus-measured", 4)
    lines = told.splitlines()
    assert status == 0
    assert lines[0] == "resnet18: 2 epochs, 2000 steps of 128 images"
    assert lines[1] == "data: 125 GiB, read 2 times"
    assert [line.split() for line in lines[3:]] == [
        ["1", "4.4", "4.4", "16", "16", "128"],  # 16,000 s
        ["8", "1.1", "8.9", "64", "64", "16"],  # 4,000 s
        ["64", "0.1", "8.9", "512", "512", "2"],  # 500 s
    ]
    told = run(cost.main, *arguments, "--images-per-second", 128, "--gpus-measured", 8)[1]
    assert told.splitlines()[4].split() == ["8", "0.6", "4.4", "128", "128", "16"]  # measured: nothing is assumed


def test_cost_of_a_recipe_that_is_not_there(run: Run, tmp_path: Path) -> None:
    status, _, errors = run(cost.main, "--config", tmp_path / "none.yaml", "--images-per-second", 1)
    assert status == 1
    assert errors.startswith("cost.py: ")
    assert "none.yaml" in errors


@pytest.mark.parametrize("workers", [0, 1])
def test_the_input_path_says_what_it_brings(run: Run, pictures_folder: Path, recipe: str, workers: int) -> None:
    quick = ("--config", recipe, "--images", 4, "--rounds", 2, "--workers", workers, "--seconds", 0.3)
    status, told, _ = run(input_path.main, pictures_folder / "train", *quick, "--needed", 1e-3)
    assert status == 0
    rates = dict(re.findall(r"^(.*?) +([\d.]+ +[\d.]+)$", told, re.MULTILINE))
    stages = ["reading, as the disk is now", "reading, from the cache", "decoding", "decoding, augmenting"]
    assert list(rates) == [*stages, f"the loader, {workers} workers"]
    assert all(float(rate) > 0 for pair in rates.values() for rate in pair.split())
    assert "4 files of" in told
    assert "it keeps up" in told
    assert "the work of 0.0 cores (worked out)" in told


def test_the_input_path_says_when_it_is_the_bound(run: Run, pictures_folder: Path, recipe: str) -> None:
    quick = ("--config", recipe, "--images", 2, "--rounds", 1, "--workers", 0, "--seconds", 0.2)
    told = run(input_path.main, pictures_folder / "train", *quick, "--needed", 1e9, "--compare")[1]
    assert "it is the bound" in told
    cpu = float(re.findall(r"^the loader, 0 workers +[\d.]+ +([\d.]+)$", told, re.MULTILINE)[0])
    cores = float(re.findall(r"the work of ([\d.]+) cores", told)[0])
    assert cores == pytest.approx(1e9 / cpu, rel=1e-3)
    assert re.search(r"^decoding, augmenting .* 1\.00 times", told, re.MULTILINE)
    for name in ("Pillow, torchvision on Pillow's images", "Pillow, its resize of a box, draft"):
        assert re.search(rf"^{name} +[\d.]+ +[\d.]+ +[\d.]+ times", told, re.MULTILINE), name


def test_waiting_is_no_work_of_a_core() -> None:
    rate = input_path.rated(lambda _: time.sleep(0.02), 5)
    assert rate.wall <= 50
    assert rate.cpu > 2 * rate.wall


def test_the_loader_shows_the_images_in_turn() -> None:
    draws = []
    for batch in input_path.Until(50, 60.0):
        draws += batch
        if len(draws) > 100:
            break
    assert draws == [Draw(i % 50, i // 50) for i in range(128)]
    assert len(list(input_path.Until(50, 0.0))) == 1


def test_the_input_path_of_what_cannot_be_used(run: Run, pictures_folder: Path, recipe: str, tmp_path: Path) -> None:
    status, _, errors = run(input_path.main, tmp_path / "nowhere", "--config", recipe)
    assert status == 1
    assert errors.startswith("input_path.py: data: expected class folders")
    folder = Path(shutil.copytree(pictures_folder / "train", tmp_path / "train"))
    (folder / "ant" / "0.jpg").write_bytes(b"no image")
    status, _, errors = run(input_path.main, folder, "--config", recipe, "--workers", 0)
    assert status == 1
    assert "ant/0.jpg cannot be decoded" in errors
