"""``captum-lipschitz ara`` end to end: figures, files, resuming, refusals."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from captum_lipschitz import MinimumNormAttack, accuracy_robustness_area
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds
from captum_lipschitz.measure import AraSettings
from captum_lipschitz.measure.attacks import attack_versions
from captum_lipschitz.measure.models import load_model
from captum_lipschitz.metrics.measurement import Measurement

Ara = Callable[..., tuple[int, str, str]]


def figures(folder: Path) -> dict[str, object]:
    """``ara.json`` without what differs from run to run."""
    content = json.loads((folder / "ara.json").read_text())
    return {name: value for name, value in content.items() if not name.startswith(("seconds", "processes"))}


def test_the_figures_are_those_of_the_function(work: Path, ara: Ara) -> None:
    status, output, progress = ara()
    assert status == 0
    with np.load("data.npz") as arrays:
        images, labels = torch.from_numpy(arrays["images"]).float() / 255, torch.from_numpy(arrays["labels"])
    expected = accuracy_robustness_area(
        load_model("measured_models:small"), list(zip(images.split(4), labels.split(4), strict=True))
    )
    written = json.loads(Path("out/ara.json").read_text())
    assert written["distances"] == expected.distances.tolist()
    assert (written["area"], tuple(written["interval"])) == (expected.area, expected.interval)
    assert output.splitlines()[0] == str(expected).splitlines()[0]
    assert "ARA: 100%" in progress
    assert f"ARA {expected.area:.4g}" in progress
    assert written["settings"]["images"] == 20
    assert written["settings"]["versions"]["torch"]
    assert written["seconds"] > 0


def test_every_file_is_there_and_whole(work: Path, ara: Ara) -> None:
    ara("--limit", "6", "--norm", "l2", "--bounds", "0", "1", "--effort", "fast", "--criterion", "below_chance")
    assert {path.name for path in Path("out").iterdir()} == {
        "ara.json", "chunks", "curve.png", "distances.csv", "settings.json"
    }  # fmt: skip
    assert sorted(path.name for path in Path("out/chunks").iterdir()) == ["000000.json", "000001.json"]
    written = json.loads(Path("out/ara.json").read_text())
    assert (written["norm"], written["criterion"], written["settings"]["bounds"]) == ("l2", "BelowChance()", [0, 1])
    with Path("out/distances.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["name"] for row in rows] == [str(i) for i in range(6)]
    assert [float(row["distance"]) for row in rows] == [math.inf if d is None else d for d in written["distances"]]
    with Image.open("out/curve.png") as picture:
        assert len(picture.convert("L").getcolors(256) or []) > 20


def test_a_folder_of_images_with_normalisation(work: Path, ara: Ara) -> None:
    arguments = ("--resize", "8", "--crop", "8", "--mean", "0.5", "--std", "0.25")
    assert ara(*arguments, data="images")[0] == 0
    rows = list(csv.DictReader(Path("out/distances.csv").read_text().splitlines()))
    assert rows[0]["name"] == "class0/00.png"
    assert [int(row["label"]) for row in rows] == [0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4, 4]


def test_perturbations_are_measured_on_unnormalised_images(work: Path, ara: Ara) -> None:
    Path("scaled.py").write_text(
        "import torch, measured_models\n"
        "class Scaled(torch.nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.inner = measured_models.small()\n"
        "    def forward(self, images):\n        return self.inner(images * 0.5 + 0.25)\n"
    )
    # The normalisation undoes what the model does: the same function of the image, so the same distances.
    assert ara("--output", "plain")[0] == 0
    assert ara("--output", "scaled", "--mean", "0.25", "--std", "0.5", model="scaled:Scaled")[0] == 0
    plain, scaled = (json.loads(Path(name, "ara.json").read_text()) for name in ("plain", "scaled"))
    assert scaled["distances"] == pytest.approx(plain["distances"], rel=1e-3, abs=1e-6)


def test_resuming_gives_the_same_figures_and_redoes_what_is_damaged(work: Path, ara: Ara) -> None:
    ara("--output", "whole")
    ara()
    damaged = Path("out/chunks/000002.json")
    content = damaged.read_bytes()
    damaged.write_bytes(content[:100])
    Path("out/chunks/000003.json").unlink()
    untouched = Path("out/chunks/000001.json").stat().st_mtime_ns
    _, _, progress = ara()
    assert "12/20" in progress
    assert Path("out/chunks/000001.json").stat().st_mtime_ns == untouched
    assert json.loads(damaged.read_text())["part"] == json.loads(content)["part"]
    assert figures(Path("out")) == figures(Path("whole"))
    for name in ("distances.csv", "curve.png"):
        assert Path("out", name).read_bytes() == Path("whole", name).read_bytes()


def test_another_guess_is_summarised_from_the_same_chunks(work: Path, ara: Ara) -> None:
    ara()
    before = Path("out/chunks/000000.json").stat().st_mtime_ns
    assert ara("--chance", "0.05", "--doubts", "off")[0] == 0
    assert json.loads(Path("out/ara.json").read_text())["chance_accuracy"] == 0.05
    assert Path("out/chunks/000000.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("changed", "named"),
    [
        (("--norm", "linf"), "norm (None, now linf)"),
        (("--chunk-size", "5"), "chunk_size (4, now 5)"),
        (("--limit", "12"), "images (20, now 12)"),
        (("--criterion", "below_chance"), "criterion (misclassified, now below_chance)"),
        (("--model", "measured_models:made", "--mean", "0", "--std", "1"), "mean (None, now [0.0])"),
        (("--threads", "2"), "threads (1, now 2)"),
    ],
)
def test_other_settings_are_refused_and_restart_obeys(
    work: Path, ara: Ara, changed: tuple[str, ...], named: str
) -> None:
    ara()
    status, _, errors = ara(*changed)
    assert status == 1
    assert errors.strip().splitlines()[-1].startswith("captum-lipschitz: output: out holds a run with other settings: ")
    assert named in errors
    assert ara(*changed, "--restart")[0] == 0


def test_restart_removes_old_results(work: Path, ara: Ara, monkeypatch: pytest.MonkeyPatch) -> None:
    ara()
    monkeypatch.setattr("captum_lipschitz.measure.run._work", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        ara("--restart")
    assert {path.name for path in Path("out").iterdir()} == {"chunks", "settings.json"}
    assert list(Path("out/chunks").iterdir()) == []


def test_doubts_are_checked_at_once() -> None:
    with pytest.raises(InvalidInputError, match=r"doubts: expected one of \['full', 'off', 'quick'\], got 'deep'"):
        AraSettings(model="a:b", data=Path("d"), output=Path("o"), doubts="deep")


def test_versions_are_those_of_what_a_plugin_wraps(monkeypatch: pytest.MonkeyPatch) -> None:
    requirements = ["torch>=2", "no-such-thing", "numpy==1; extra == 'full'", "pytest; extra == 'test'"]
    record = SimpleNamespace(distribution="wrapper", components=[SimpleNamespace(kind="attack", name="wrapped")])
    monkeypatch.setattr("captum_lipschitz.measure.attacks.plugins", lambda: [record])
    monkeypatch.setattr("captum_lipschitz.measure.attacks.metadata.requires", {"wrapper": requirements}.get)
    assert list(attack_versions("wrapped")) == ["wrapper", "numpy", "torch"]
    assert attack_versions("wrapped")["numpy"] == np.__version__


def test_other_weights_under_the_same_name_are_noticed(work: Path, ara: Ara) -> None:
    ara(model="measured_models:random")
    status, _, errors = ara(model="measured_models:random")
    assert status == 1
    assert "other settings: weights (" in errors


def test_attacks_that_draw_do_so_by_chunk(work: Path, ara: Ara, monkeypatch: pytest.MonkeyPatch) -> None:
    class Drawing(MinimumNormAttack):
        def search(self, problem):
            found = super().search(problem)
            return found._replace(perturbations=found.perturbations * (1.001 + 0.1 * torch.rand(1)))

    monkeypatch.setattr("captum_lipschitz.measure.run.make_attack", lambda _: Drawing())
    ara("--output", "whole")
    ara()
    Path("out/chunks/000002.json").unlink()
    ara()
    assert figures(Path("out")) == figures(Path("whole"))


@pytest.mark.parametrize("most", [64, 5])
def test_an_attack_gets_images_of_all_the_data_to_start_from(
    work: Path, ara: Ara, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    seen = []
    monkeypatch.setattr("captum_lipschitz.measure.data._STARTING_IMAGES", most)

    class Starting(MinimumNormAttack):
        def starting_from(self, images: torch.Tensor) -> Starting:
            seen.append(images)
            return self

    monkeypatch.setattr("captum_lipschitz.measure.run.make_attack", lambda _: Starting())
    ara()
    with np.load("data.npz") as arrays:
        expected = torch.from_numpy(arrays["images"]).float() / 255
    assert torch.equal(torch.cat(seen), expected if most == 64 else expected[::4])


def test_an_attacks_own_norm_and_box_are_measured_in(work: Path, ara: Ara, monkeypatch: pytest.MonkeyPatch) -> None:
    boxed = MinimumNormAttack(norm="linf", bounds=(0, 1))
    monkeypatch.setattr("captum_lipschitz.measure.run.make_attack", lambda _: boxed)
    seen = []
    monkeypatch.setattr(
        Measurement, "_inside", lambda self, images: seen.append(self.bounds) or torch.ones(len(images)) > 0
    )
    assert ara()[0] == 0
    assert set(seen) == {Bounds(0.0, 1.0)}
    assert json.loads(Path("out/ara.json").read_text())["norm"] == "linf"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--attack", "papre"), "got 'papre'; did you mean 'paper'?"),
        (("--attack", "paper", "--effort", "fast"), "effort: the attack 'paper' has no such setting"),
        (("--chance", "half"), "chance: expected 'uniform', 'majority' or a fraction in [0, 1), got 'half'"),
        (("--chance", "1.5"), "chance: expected"),
        (("--limit", "0"), "limit: expected at least 1, got 0"),
        (("--chunk-size", "0"), "chunk_size: expected at least 1"),
        (("--mean", "0.5"), "mean, std: expected both or neither"),
        (("--mean", "0", "--std", "0"), "std: expected positive values"),
        (("--resize", "8", "--crop", "9"), "crop: expected at most the short side 8, got 9"),
        (("--bounds", "1", "0"), "bounds: expected lower < upper"),
        (("--effort", "heroic"), "argument --effort: invalid choice"),
        (("--timeout", "0"), "timeout: expected a positive number"),
    ],
)
def test_wrong_usage(work: Path, ara: Ara, arguments: tuple[str, ...], message: str) -> None:
    status, _, errors = ara(*arguments)
    assert status == 2
    assert message in errors
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--data", "absent.npz"), "data: expected a folder of class folders or an .npz file, got absent.npz"),
        (("--crop", "8"), "crop: expected with a folder of images only"),
        (("--device", "abacus"), "device: expected one that torch can use here, got 'abacus'"),
        (("--weights", "absent.pt"), "weights: expected a file, got absent.pt"),
        (("--data", "few.npz"), "data: labels: expected classes in 0..4, got 9..9"),
        (("--data", "four"), "class_index: expected one, as four has 2 class folders and the model 5 classes"),
        (("--data", "large.npz"), "model: expected one that takes images of shape (3, 9, 9), got RuntimeError: "),
    ],
)
def test_errors_come_before_the_work(work: Path, ara: Ara, arguments: tuple[str, ...], message: str) -> None:
    np.savez("few.npz", images=np.zeros((1, 3, 8, 8), np.uint8), labels=np.array([9]))
    np.savez("large.npz", images=np.zeros((1, 3, 9, 9), np.uint8), labels=np.array([0]))
    for name in ("a", "b"):
        Path("four", name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(f"four/{name}/0.png")
    status, _, errors = ara(*arguments)
    assert status == 1
    assert errors.strip().splitlines()[-1].startswith(f"captum-lipschitz: {message}")
    assert not Path("out/chunks/000000.json").exists()


def test_a_damaged_image_stops_before_the_work(work: Path, ara: Ara) -> None:
    whole = Path("images/class4/04.png")
    whole.write_bytes(whole.read_bytes()[:120])
    status, _, errors = ara(data="images")
    assert status == 1
    assert "captum-lipschitz: data: images/class4/04.png cannot be decoded" in errors
    assert list(Path("out").rglob("0*.json")) == []


def test_a_full_disk_keeps_the_figures_said(work: Path, ara: Ara, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("captum_lipschitz.measure.outputs.write_json", full)
    status, output, errors = ara()
    assert (status, output[:4]) == (1, "ARA ")
    assert "captum-lipschitz: [Errno 28] No space left on device" in errors


LOADING = """
import torch
from torch import nn

def made():
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 5))
    network.load_state_dict(torch.load("net.pt", weights_only=True))
    network.eval()
    return lambda images: network(images)
"""


def test_a_function_that_answers_otherwise_is_another_model(work: Path, ara: Ara) -> None:
    (work / "loading.py").write_text(LOADING)
    for seed in (0, 1):
        torch.manual_seed(seed)
        torch.save(nn.Sequential(nn.Flatten(), nn.Linear(192, 5)).state_dict(), "net.pt")
        status, _, errors = ara(model="loading:made")
        assert status == seed, errors  # 1 is a refusal
    assert "answers" in errors
    assert "--restart" in errors


def test_other_pixels_in_files_of_the_same_size_are_other_images(work: Path, ara: Ara) -> None:
    for seed in (0, 1):
        pixels = np.random.default_rng(seed).integers(0, 256, (10, 8, 8, 3), dtype=np.uint8)
        for i, one in enumerate(pixels):
            folder = work / "maps" / f"class{i % 5}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(one).save(folder / f"{i}.bmp")
        status, _, errors = ara(data="maps")
        assert status == seed, errors  # 1 is a refusal
    assert "data" in errors


def test_images_of_several_sizes_are_named(work: Path, ara: Ara) -> None:
    Image.fromarray(np.zeros((9, 9, 3), dtype=np.uint8)).save(work / "images" / "class1" / "odd.png")
    status, _, errors = ara(data="images")
    assert status == 1
    assert "odd.png with 9 x 9 and others with 8 x 8 pixels" in errors


def test_doubts_are_looked_for_on_sixteen_images_whatever_the_chunks(
    work: Path, ara: Ara, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, int]] = []

    def watching(measurement: object, images: torch.Tensor, labels: object, distances: object, **others: int) -> object:
        seen.append((len(images), len(distances), others["max_images"]))  # type: ignore[arg-type]
        return ()

    monkeypatch.setattr("captum_lipschitz.measure.run.find_doubts", watching)
    assert ara()[0] == 0  # chunks of 4, 20 images
    assert seen == [(20, 20, 16)]
