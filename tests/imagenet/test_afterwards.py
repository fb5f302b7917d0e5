"""What a run leaves, and what the other scripts make of it: logs, pictures, areas, a robust network."""

from __future__ import annotations

import dataclasses
import json
import math
import runpy
import sys
from pathlib import Path

import explain
import pytest
import torch
from image_folders import CLASSES, IMAGENET
from imagenet_training.progress import Progress
from imagenet_training.recipe import Recipe, read_recipe
from imagenet_training.run import Run, start
from imagenet_training.trained import read_run
from PIL import Image

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.folder import FolderData

PLAIN = Recipe(
    model="shufflenet_v2_x0_5", learning_rate=0.01, resolution=32, resize=36, epochs=2, warmup_epochs=0, batch_size=8,
    precision="float32",
)  # fmt: skip


def _run(folder: Path, data: Path) -> Run:
    return Run(output=folder, data=data, workers=0, threads=1, ara_images=4, log_every=2, tensorboard=True)


@pytest.fixture(scope="module")
def plain(pictures_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that has ended."""
    folder = tmp_path_factory.mktemp("runs") / "plain"
    assert start(PLAIN, _run(folder, pictures_folder)) == 0
    return folder


@pytest.fixture(scope="module")
def tuned(plain: Path, pictures_folder: Path) -> Path:
    """The folder of a run that made the plain network robust."""
    folder = plain.parent / "tuned"
    small = ["model=shufflenet_v2_x0_5", "resolution=32", "resize=36", "batch_size=8", "precision=float32", "epochs=2"]
    recipe = read_recipe(
        IMAGENET / "configs" / "finetune.yaml",
        [*small, "learning_rate=0.001", f"weights={plain / 'weights.safetensors'}"],
    )
    assert start(recipe, _run(folder, pictures_folder)) == 0
    return folder


def _call(script: str, *arguments: object) -> int:
    """The exit status of a script, run in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [script, *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(IMAGENET / script), run_name="__main__")
    return int(ended.value.code or 0)


def test_tensorboard_has_what_the_log_has(tuned: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    read = events.EventAccumulator(str(tuned / "tensorboard"))
    read.Reload()
    logged = [json.loads(line) for line in (tuned / "log.jsonl").read_text().splitlines()]
    for name in ("loss", "penalty", "strength", "median_radius", "images_per_second", "quick_ara"):
        expected = [(line["step"], math.inf if line[name] is None else line[name]) for line in logged if name in line]
        assert expected, name
        assert [point.step for point in read.Scalars(name)] == [step for step, _ in expected]
        assert [point.value for point in read.Scalars(name)] == pytest.approx(
            [value for _, value in expected], rel=1e-5
        )


def test_tensorboard_keeps_the_step_that_a_run_went_on_from(pictures_folder: Path, tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    for stop in (3, None):
        run = dataclasses.replace(_run(tmp_path, pictures_folder), log_every=1, resume=True, stop_after=stop)
        assert start(PLAIN, run) == 0
    read = events.EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [point.step for point in read.Scalars("loss")] == [1, 2, 3, 4, 5, 6]


def test_a_network_that_was_made_robust_comes_back_as_it_was(plain: Path, tuned: Path) -> None:
    kinds = {type(layer) for layer in read_run(tuned).network().modules()}
    assert HalfHuberReLU in kinds
    assert torch.nn.ReLU not in kinds
    assert HalfHuberReLU not in {type(layer) for layer in read_run(plain).network().modules()}


def test_two_runs_are_measured_and_compared_on_the_same_images(
    plain: Path, tuned: Path, pictures_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = ("evaluate.py", tuned, "--against", plain, "--data", pictures_folder, "--effort", "fast", "--limit", 6)
    assert _call(*measured) == 0, capsys.readouterr()
    found = json.loads((tuned / "evaluation" / "evaluation.json").read_text())
    assert found["images"] == 6
    assert {"clean_accuracy", "clean_accuracy_against", "attack", "btr"} <= found.keys()
    for name in ("attack", "btr"):
        area, other = (_area(folder / "evaluation" / name) for folder in (tuned, plain))
        assert found[name]["area"] == area
        if area is None or not other:
            assert "no_ratio" in found[name]  # and all else was written nevertheless
        else:
            assert found[name]["ratio"] == pytest.approx(area / other)


def _area(folder: Path) -> float | None:
    ara = json.loads((folder / "ara.json").read_text())
    assert len(ara["distances"]) == 6
    area: float | None = ara["area"]
    return area


def test_a_picture_for_each_image(plain: Path, pictures_folder: Path, tmp_path: Path) -> None:
    names = tmp_path / "classes.json"
    names.write_text(json.dumps({name: [number, name.upper()] for number, name in enumerate(CLASSES)}))
    made = ("explain.py", plain, "--images", pictures_folder / "val" / "bee", "--output", tmp_path / "out")
    assert _call(*made, "--class-names", names, "--limit", 2, "--top", 2) == 0
    files = sorted((tmp_path / "out").iterdir())
    assert [file.name for file in files] == ["0000-0.png", "0001-1.png"]
    for file in files:
        with Image.open(file) as picture:
            picture.load()
            assert min(picture.size) > 200


def test_class_names_in_each_form_that_there_is(tmp_path: Path) -> None:
    path, folders = tmp_path / "names.json", ["n01440764", "n01443537", "n01484850"]
    for content, expected in (
        ({"0": ["n01440764", "tench"], "2": ["n01484850", "white shark"]}, ["tench", "n01443537", "white shark"]),
        ({"n01440764": [0, "tench"], "n01484850": [2, "white shark"]}, ["tench", "n01443537", "white shark"]),
        ({"7": ["n01443537", "goldfish"]}, ["n01440764", "goldfish", "n01484850"]),  # numbered as elsewhere
        ({"n01440764": 0}, folders),
    ):
        path.write_text(json.dumps(content))
        assert explain._names(folders, path) == expected
    assert explain._names(folders, None) == folders


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (
            '{"0": ["n02084071", "dog"]}',
            r"class-names: expected names of the run's folders, such as n01440764, in .*names",
        ),
        ('["tench"]', "class_index: expected a JSON object"),
        ('{"n01440764": "tench"}', r'expected {"n01440764": \[0, "tench"\]} or {"0": \["n01440764", "tench"\]}'),
    ],
)
def test_class_names_that_are_none(content: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(content)
    with pytest.raises(InvalidInputError, match=words):
        explain._names(["n01440764"], tmp_path / "names.json")


def test_an_image_is_explained_as_it_is_evaluated(pictures_folder: Path) -> None:
    data = FolderData(pictures_folder / "val", resize=PLAIN.resize, crop=PLAIN.resolution)
    for i in range(15):
        shown = explain._read(pictures_folder / "val" / data.name(i), PLAIN)
        assert shown.equal(data.images(i, i + 1))


def test_images_that_are_none_and_runs_that_did_not_end(
    plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _call("explain.py", plain, "--images", tmp_path, "--output", tmp_path / "out") == 1
    assert "images: expected files of .jpg" in capsys.readouterr().err
    (tmp_path / "cut.jpg").write_bytes(b"no image")
    assert _call("explain.py", plain, "--images", tmp_path, "--output", tmp_path / "out") == 1
    assert "cut.jpg cannot be read as an image" in capsys.readouterr().err
    (tmp_path / "recipe.json").write_bytes((plain / "recipe.json").read_bytes())
    with pytest.raises(
        InvalidInputError, match=r"run: expected one that has ended, got .* without weights.safetensors"
    ):
        read_run(tmp_path)
    assert _call("evaluate.py", tmp_path / "nowhere", "--data", tmp_path) == 1
    assert "run: expected the output folder of train.py, got" in capsys.readouterr().err


def test_an_area_without_end_is_null_in_the_log(tmp_path: Path) -> None:
    progress = Progress(tmp_path, first=True, start=0, steps=1, images_per_step=8, tensorboard=False)
    progress.note(1, {"quick_ara": float("inf"), "loss": 0.5})
    progress.close()
    assert json.loads((tmp_path / "log.jsonl").read_text()) == {"step": 1, "quick_ara": None, "loss": 0.5}
