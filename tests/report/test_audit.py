"""An audit of tiny models: what they have, what they cannot have, and what a method that raises takes along."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from captum_lipschitz.errors import InvalidInputError, UnknownNameError
from captum_lipschitz.measure import AraSettings, run_ara
from captum_lipschitz.report import steps
from captum_lipschitz.report.audit import run_audit
from captum_lipschitz.report.content import Audit
from captum_lipschitz.report.explanations import explainers
from captum_lipschitz.report.images import grid
from captum_lipschitz.report.settings import AuditSettings

MODELS = """
import torch
from torch import nn

def small():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)
    )

def other():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 3))

def binary():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 1))

def rows():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

def volume():
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(2, 3))
    return nn.Sequential(nn.Conv3d(1, 2, 3, padding=1), nn.ReLU(), *pooled)

def foreign():
    model = other()
    return lambda images: torch.from_numpy(model(torch.from_numpy(images.numpy())).detach().numpy())

def blind():
    return lambda images: torch.stack([images.detach().flatten(1).mean(1), torch.full((len(images),), 0.5)], 1)
"""

Run = Callable[..., Audit]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Audits a model of ``audited_models`` with few methods, little effort and images that it decides as labelled."""
    (tmp_path / "audited_models.py").write_text(MODELS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("captum_lipschitz.metrics.fidelity.optional.find_spec", lambda _: None)  # slow to import
    from captum_lipschitz.measure.models import load_model

    def audited(
        model: str = "small",
        shape: tuple[int, ...] = (1, 8, 8),
        *,
        labels: Any = None,
        count: int = 8,
        images_shown: bool = True,
        **settings: Any,
    ) -> Audit:
        pixels = np.random.default_rng(0).random((count, *shape), dtype=np.float32)
        spec = f"audited_models:{model}"
        if labels is None:
            with torch.no_grad():
                labels = load_model(spec)(torch.from_numpy(pixels)).argmax(1).numpy()
        np.savez("data.npz", images=pixels, labels=labels)
        usual: dict[str, Any] = {
            "effort": "fast", "methods": ("adversarial", "saliency", "random"), "chunk_size": 4, "device": "cpu"
        }  # fmt: skip
        chosen = AuditSettings(
            model=spec, data=Path("data.npz"), output=Path("out"), images=images_shown, **{**usual, **settings}
        )
        return run_audit(chosen, say=lambda _: None, show_progress=False)

    return audited


def test_everything_that_can_be_is_there(run: Run) -> None:
    audit = run(effort="standard")
    (model,) = audit.models
    assert model.robustness is not None
    assert model.robustness.accuracy == 1
    assert model.robustness.curve_accuracy[-1] == 0
    assert model.invalidation is not None
    assert model.fidelity is not None
    titles = ["Adversarial explanation", "Saliency", "Random map"]
    assert list(model.invalidation.rows) == list(model.fidelity.rows) == titles
    assert model.fidelity.compared_with == titles[0]
    assert "succeeds_outside" in model.invalidation.rows["Saliency"]
    assert len(model.fidelity.rows["Saliency"]["insertion"].values) == 8
    assert [image.number for image in model.images] == list(range(8))
    assert [len(shown) for shown in model.images[0].explanations.values()] == [3, 3]
    assert set(model.left_out) == {"ROAD", "Parameter randomisation"}
    assert {finding.support for finding in model.findings} <= {"supported", "contradicted", "undecided"}
    assert any("than Saliency" in finding.claim for finding in model.findings)
    assert audit.settings["costs"]["Saliency"] == "1 gradient"
    assert {"report.html", "report.json", "values.csv"} <= {path.name for path in Path("out").iterdir()}


def test_the_area_is_that_of_the_other_command(run: Run) -> None:
    robustness = run(methods=("random",)).models[0].robustness
    measured = run_ara(
        AraSettings(
            model="audited_models:small", data=Path("data.npz"), output=Path("ara"), effort="fast", chunk_size=4,
            device="cpu", doubts="off",
        ),
        say=lambda _: None, show_progress=False,
    )  # fmt: skip
    assert robustness is not None
    assert measured is not None
    assert robustness.ara["distances"] == measured.distances.tolist()
    assert robustness.ara["area"] == measured.area


def test_a_method_that_raises_takes_nothing_else_down(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = steps.invalidated

    def failing(subject: Any, chunk: Any, method: Any, *rest: Any) -> Any:
        if method.name == "saliency" and chunk.start:
            raise RuntimeError("no such layer\nand more")
        return before(subject, chunk, method, *rest)

    monkeypatch.setattr(steps, "invalidated", failing)
    (model,) = run().models
    assert model.left_out["Saliency, invalidation"] == "RuntimeError: no such layer"
    assert model.invalidation is not None
    assert list(model.invalidation.rows) == ["Adversarial explanation", "Random map"]
    assert model.fidelity is not None
    assert "Saliency" in model.fidelity.rows


@pytest.mark.parametrize(
    ("model", "shape", "absent"),
    [
        ("other", (1, 8, 8), {"Grad-CAM"}),  # no convolution
        ("rows", (6,), {"Grad-CAM", "Guided Backprop"}),
        ("volume", (1, 4, 6, 6), set()),
    ],
)
def test_what_a_model_cannot_have_is_left_out(run: Run, model: str, shape: tuple[int, ...], absent: set[str]) -> None:
    methods = ("adversarial", "guided_backprop", "grad_cam") if model != "other" else ("adversarial", "grad_cam")
    (found,) = run(model, shape, methods=methods, count=4).models
    assert set(found.left_out) & {"Grad-CAM", "Guided Backprop"} == absent
    assert found.robustness is not None
    assert found.invalidation is not None
    assert found.fidelity is not None
    assert len(found.images) == 4


def test_one_logit_makes_two_classes(run: Run) -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32))
    namespace: dict[str, Any] = {}
    exec(MODELS, namespace)  # noqa: S102
    with torch.no_grad():
        labels = (namespace["binary"]()(pixels)[:, 0] > 0).long().numpy()
    (found,) = run("binary", labels=labels, class_names=("ill", "well")).models
    assert found.robustness is not None
    assert found.robustness.accuracy == 1
    assert found.robustness.ara["chance_accuracy"] == 0.5
    assert {image.prediction for image in found.images} <= {"ill", "well"}


def test_labels_of_their_own_have_areas_of_their_own(run: Run) -> None:
    labels = np.random.default_rng(1).integers(0, 2, (8, 3))
    (found,) = run("other", labels=labels, class_names=("a", "b", "c")).models
    assert found.invalidation is None
    assert found.fidelity is None
    assert "each by itself" in found.left_out["Invalidation table"]
    assert found.robustness is not None
    assert set(found.robustness.ara["by_label"]) == {"a", "b", "c"}
    assert len(found.images) == 8


def test_a_model_without_a_gradient_keeps_what_needs_none(run: Run) -> None:
    labels = np.zeros(8, dtype=np.int64)
    (found,) = run("blind", labels=labels, methods=("adversarial", "occlusion", "random")).models
    assert found.robustness is not None
    assert found.robustness.accuracy == found.robustness.ara["correct"].count(True) / 8
    assert math.isnan(found.robustness.ara["area"])
    assert "DisconnectedModelError" in found.robustness.doubts[0]
    assert "DisconnectedModelError" in found.left_out["Robustness"]
    assert "differentiable" in found.left_out["Adversarial explanation"]
    assert found.fidelity is not None
    assert list(found.fidelity.rows) == ["Occlusion", "Random map"]


def test_a_model_that_is_none_of_torchs_has_an_accuracy(run: Run) -> None:
    (found,) = run("foreign", methods=("saliency", "random")).models
    assert found.robustness is not None
    assert found.robustness.accuracy == 1
    assert found.left_out["Saliency"].startswith("no gradient: Can't call numpy()")
    assert "numpy" in found.left_out["Robustness"]
    assert found.fidelity is not None
    assert list(found.fidelity.rows) == ["Random map"]
    page = Path("out/report.html").read_text()
    assert "decides 100% of 8 images rightly" in page
    assert "nan" not in page.partition("<body")[2].partition('id="settings"')[0]


@pytest.mark.parametrize("effort", ["fast", "standard"])
def test_images_that_are_all_decided_wrongly_are_said_to_be(run: Run, effort: str) -> None:
    kept = run(methods=("random",), count=4).models[0].images
    names = [image.prediction for image in kept]
    labels = np.array([(int(name.removeprefix("class ")) + 1) % 3 for name in names])
    (found,) = run(methods=("random",), count=4, labels=labels, effort=effort, restart=True).models
    assert found.robustness is not None
    assert found.robustness.accuracy == 0
    assert found.invalidation is None
    told = [why for why in found.left_out.values() if "no image was decided rightly" in why]
    assert len(told) == 1
    assert "Attacks confined to a region" not in found.left_out


def test_two_models_side_by_side(run: Run) -> None:
    audit = run(compare="audited_models:other", methods=("adversarial", "saliency"))
    assert [model.name for model in audit.models] == ["small", "other"]
    assert audit.comparison["Accuracy"].images == 8
    assert audit.comparison["Accuracy"].mean == audit.models[1].robustness.accuracy - 1  # type: ignore[union-attr]
    assert "Saliency: Insertion" in audit.comparison
    assert any("more robust than" in finding.claim for finding in audit.models[1].findings)
    again = run(methods=("adversarial", "saliency"))  # the first model's steps are there
    assert again.models[0].fidelity == audit.models[0].fidelity


def test_a_report_without_images_holds_nothing_of_them(run: Run) -> None:
    (model,) = run(methods=("saliency",)).models
    assert all(image.original is not None for image in model.images)
    with_images = set(Path("out/first/steps").glob("pictures-*"))
    (model,) = run(methods=("saliency",), images_shown=False).models
    assert with_images
    assert all(image.original is None and image.name == f"image {image.number}" for image in model.images)
    assert not with_images & set(Path("out/first/steps").glob("pictures-*"))


def test_no_step_holds_anything_of_an_images_shape_and_a_resumed_run_says_the_same(run: Run) -> None:
    whole = run().models[0]
    kept = {path: path.read_bytes() for path in Path("out/first/steps").glob("*.step")}
    assert any(path.name.startswith("attack-") for path in kept)
    for path, content in kept.items():
        values = safetensors.torch.load(content.partition(b"\n")[2])
        assert all(value.dim() <= 1 and len(value) == 4 for value in values.values() if value.dim()), path
    for path in kept:
        if path.name.startswith("invalidation-saliency"):
            path.unlink()
    again = run(images_shown=False).models[0]
    assert again.invalidation == whole.invalidation
    for path, content in kept.items():
        if path.name.startswith("invalidation-saliency"):
            first, second = (safetensors.torch.load(c.partition(b"\n")[2]) for c in (content, path.read_bytes()))
            assert all(torch.equal(first[key].nan_to_num(-1), second[key].nan_to_num(-1)) for key in first)


@pytest.mark.parametrize("restart", [False, True])
def test_pictures_of_earlier_runs_are_gone_before_any_work(
    run: Run, monkeypatch: pytest.MonkeyPatch, *, restart: bool
) -> None:
    run(compare="audited_models:other", methods=("random",))
    assert list(Path("out/second/steps").glob("pictures-*"))

    def stopped(*_: Any) -> Any:
        raise KeyboardInterrupt

    for part in ("attacked", "pictured"):
        monkeypatch.setattr(steps, part, stopped)
    with pytest.raises(KeyboardInterrupt):
        run(methods=("random",), images_shown=False, restart=restart)
    assert not [path for path in Path("out").rglob("*") if path.suffix in {".html", ".csv"} or "pictures-" in path.name]
    assert Path("out/second/steps").exists() != restart


def test_a_report_without_images_stays_until_the_next(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run(methods=("random",), images_shown=False)
    monkeypatch.setattr("captum_lipschitz.report.audit.carry_out", lambda *_, **__: pytest.exit("here"))
    pictures = sorted(Path("out/first/steps").glob("pictures-*"))
    with pytest.raises(pytest.exit.Exception):
        run(methods=("random",), images_shown=False)
    assert Path("out/report.html").exists()
    assert sorted(Path("out/first/steps").glob("pictures-*")) == pictures


def test_maps_that_look_like_the_image_are_shown_with_images_only(run: Run) -> None:
    titles = {"Input x gradient", "Integrated Gradients", "Guided Backprop"}
    methods = ("saliency", "input_x_gradient", "integrated_gradients", "guided_backprop")
    for images_shown in (True, False):
        (model,) = run(methods=methods, images_shown=images_shown, count=4).models
        for by_method in model.images[0].explanations.values():
            assert set(by_method) == {"Saliency"} | (titles if images_shown else set())
        assert {f"{title}, pictures" for title in titles} & set(model.left_out) == (
            set() if images_shown else {f"{title}, pictures" for title in titles}
        )
        assert model.fidelity is not None
        assert titles < set(model.fidelity.rows)
    (model,) = run(methods=("input_x_gradient",), images_shown=False, count=4).models
    assert not model.images


def test_a_method_that_raises_loses_its_own_pictures_only(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = grid.attributed

    def failing(explain: Any, images: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if explain.__name__ == "saliency" and images[0, 0, 0, 0] == broken:
            raise ValueError("images must lie in [0, 1]")
        return before(explain, images, targets)

    def named(model: Any, setting: Any) -> Any:
        explain = saliency(model, setting)
        explain.__name__ = "saliency"
        return explain

    saliency = explainers.saliency

    broken = torch.from_numpy(np.random.default_rng(0).random((8, 1, 8, 8), dtype=np.float32))[5, 0, 0, 0]
    monkeypatch.setattr(grid, "attributed", failing)
    monkeypatch.setattr(explainers, "saliency", named)
    (model,) = run().models
    assert model.left_out["Saliency, pictures"] == "of 1 of 8 images: ValueError: images must lie in [0, 1]"
    for image in model.images:
        shown = {title for by_method in image.explanations.values() for title in by_method}
        assert shown == {"Adversarial explanation", "Random map"} | ({"Saliency"} if image.number != 5 else set())
    monkeypatch.setattr(grid, "attributed", before)
    (model,) = run().models  # what failed is tried again
    assert "Saliency, pictures" not in model.left_out
    assert all("Saliency" in by_method for image in model.images for by_method in image.explanations.values())


def test_a_grid_that_fails_later_keeps_its_first_images(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    before = steps.pictured

    def failing(subject: Any, chunk: Any, settings: Any) -> Any:
        if chunk.start:
            raise RuntimeError("too large")
        return before(subject, chunk, settings)

    monkeypatch.setattr(steps, "pictured", failing)
    (model,) = run(methods=("random",)).models
    assert [image.number for image in model.images] == [0, 1, 2, 3]
    assert model.left_out["Explanation grid"] == "of all but 4 images: RuntimeError: too large"


def test_nothing_is_left_of_a_run_on_the_machine(run: Run) -> None:
    torch.manual_seed(5)
    state, threads, here = torch.get_rng_state(), torch.get_num_threads(), Path.cwd()
    run(methods=("random",), count=4, labels=np.zeros(4, dtype=np.int64))
    assert torch.equal(torch.get_rng_state(), state)
    assert (torch.get_num_threads(), Path.cwd()) == (threads, here)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"methods": ("salience",)}, UnknownNameError, "methods: expected some of"),
        ({"effort": "heroic"}, InvalidInputError, "effort: expected one of"),
        ({"rho": 0.0}, InvalidInputError, "rho: expected a positive size"),
        ({"seed": -1}, InvalidInputError, "seed: expected"),
        ({"limit": 0}, InvalidInputError, "limit: expected at least 1"),
        ({"compare_weights": Path("w")}, InvalidInputError, "compare_weights: expected with a model"),
        ({"class_names": ("a", "b")}, InvalidInputError, "class_names: expected one for each of the 3 outputs, got 2"),
    ],
)
def test_what_cannot_be_used_is_refused_before_any_work(
    run: Run, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(**settings)
    assert not Path("out").exists()
