"""``measure_ara`` and ``log_ara``, for who evaluates without ``mlflow.models.evaluate``."""

import math
import re

import mlflow
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.text import Text
from models import BOX, IMAGES, LABELS, network

from captum_lipschitz import AraResult, accuracy_robustness_area
from captum_lipschitz.errors import CaptumLipschitzError, CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz_mlflow import log_ara, measure_ara
from captum_lipschitz_mlflow.pictures import curve_figure, explanation_figure, one_of_each
from captum_lipschitz_mlflow.record import curve_table, metrics_of
from captum_lipschitz_mlflow.settings import Settings

PAIR = torch.tensor(IMAGES), torch.tensor(LABELS)


def files(run_id):
    return {file.path for file in mlflow.artifacts.list_artifacts(run_id=run_id)}


def result_of(distances, chance=0.25):
    distances = torch.tensor(distances, dtype=torch.float64)
    return AraResult.of(
        distances,
        torch.zeros(len(distances), dtype=torch.int64),
        distances > 0,
        chance_accuracy=chance,
        class_chance_accuracy=chance,
        gradient_evaluations=1,
        norm="rmse",
        criterion="Misclassified()",
        attack="none",
    )


def test_measure_ara_logs_what_the_library_finds():
    expected = accuracy_robustness_area(network(), PAIR, bounds=(0, 1), doubts="off")
    with mlflow.start_run() as run:
        result = measure_ara(network(), *PAIR, **BOX, step=3, class_names=["cat", "dog", "owl"])
    assert torch.equal(result.distances, expected.distances)
    (entry,) = mlflow.MlflowClient().get_metric_history(run.info.run_id, "ara")
    assert (entry.value, entry.step) == (expected.area, 3)
    assert files(run.info.run_id) == {"ara.json", "ara_curve.csv", "ara_curve.png", "ara_explanations.png"}


def test_a_result_of_another_measurement():
    result = result_of([0.0, 0.1, 0.2, 0.3])
    with mlflow.start_run() as run:
        logged = log_ara(result, name="own")
        assert mlflow.active_run() is not None
    assert logged.metrics == metrics_of(result, "own")
    assert files(run.info.run_id) == {"own.json", "own_curve.csv", "own_curve.png"}


def test_without_a_run_one_is_started_and_ended():
    log_ara(result_of([0.1, 0.2]))
    assert mlflow.active_run() is None
    assert mlflow.last_active_run().info.status == "FINISHED"
    assert mlflow.last_active_run().data.metrics["ara_images"] == 2


def test_a_logged_model_has_the_metrics_too(logged):
    model_id = logged("pickled").rpartition("/")[2]
    measure_ara(network(), *PAIR, **BOX, explanations=0, name="by_hand", model_id=model_id)
    (metric,) = (m for m in mlflow.get_logged_model(model_id).metrics if m.key == "by_hand")
    assert metric.value == accuracy_robustness_area(network(), PAIR, bounds=(0, 1), doubts="off").area


def test_a_run_by_its_id():
    with mlflow.start_run() as run:
        pass
    log_ara(result_of([0.1, 0.2]), run_id=run.info.run_id)
    assert mlflow.get_run(run.info.run_id).data.metrics["ara_images"] == 2


def test_nothing_found_is_shown_as_such():
    result = result_of([math.inf, math.inf, 0.5, 0.1])
    with mlflow.start_run() as run:
        logged = log_ara(result)
    assert logged.metrics["ara"] == math.inf
    assert logged.artifacts["ara"].content["area"] is None
    kept = mlflow.get_run(run.info.run_id).data.metrics
    assert kept["ara"] > 1e300
    assert kept["ara_not_found"] == 2
    assert kept["ara_truncated"] == result.truncated_area


@given(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, math.inf]), min_size=1, max_size=12))
def test_the_table_is_the_curve(distances):
    table = curve_table(result_of(distances, chance=0.0))
    shares = [np.mean([distance > size for distance in distances]) for size in table["perturbation_size"]]
    np.testing.assert_allclose(table["accuracy"], shares, rtol=0, atol=1e-12)
    assert list(table["perturbation_size"]) == sorted({0.0, *(d for d in distances if d < math.inf)})
    steps = np.diff(table["perturbation_size"]) * table["accuracy"][:-1]
    if math.inf not in distances:
        assert steps.sum() == pytest.approx(np.mean(distances))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=12), st.integers(1, 12))
def test_pictures_are_of_as_many_classes_as_there_are(labels, count):
    shown = one_of_each(torch.tensor(labels), count)
    assert shown == sorted(set(shown))
    assert len(shown) == min(count, len(labels))
    assert len({labels[place] for place in shown}) == min(count, len(set(labels)))


@pytest.mark.parametrize(
    ("images", "settings"),
    [
        (PAIR[0], {}),
        (PAIR[0][:, :1].repeat(1, 3, 1, 1) * 2 - 1, {"bounds": [-1, 1]}),
        (PAIR[0] * 4 - 2, {}),
        (PAIR[0], {"explanations": 1, "rho": 0.3}),
    ],
)
def test_explanations_lie_within_what_is_drawn(images, settings):
    figure = explanation_figure(network(), images, PAIR[1], Settings.of(settings))
    rows = settings.get("explanations", 4)
    assert len(figure.axes) == 4 * rows + 1
    assert not [text for text in figure.findobj() if "clamped" in getattr(text, "get_text", str)()]


@pytest.mark.parametrize(
    ("images", "labels", "settings", "message"),
    [
        (IMAGES, PAIR[1], {}, "images: expected a tensor, got ndarray"),
        (PAIR[0], LABELS, {}, "labels: expected a tensor of classes, got ndarray"),
        (PAIR[0], PAIR[1][:3], {}, "labels: expected one class per image"),
        (PAIR[0], PAIR[1][:3], {"batch_size": 2}, "labels: expected one class per image"),
        (PAIR[0], PAIR[1], {"input_shape": [3, 8, 8]}, "input_shape: expected only by the evaluator"),
        (PAIR[0], PAIR[1], {"nothing": 1}, "expected any of .* got .'nothing'"),
    ],
)
def test_wrong_arguments(images, labels, settings, message):
    with pytest.raises(CaptumLipschitzError, match=message):
        measure_ara(network(), images, labels, **{**BOX, **settings})


@pytest.mark.parametrize(
    "settings",
    [
        {"rho": -1.0},
        {"rho": "x"},
        {"name": "a?b"},
        {"name": ".."},
        {"seed": "x"},
        {"bounds": ["0", "1"]},
        {"class_names": "abc"},
        {"class_names": [1, 2, 3]},
    ],
    ids=str,
)
def test_a_wrong_setting_costs_no_measurement(settings):
    model, passes = network(), []
    model.register_forward_pre_hook(lambda *_: passes.append(1))
    ((name, value),) = settings.items()
    with pytest.raises(InvalidInputError, match=rf"^{name}: expected .*got {re.escape(repr(value))}"):
        measure_ara(model, *PAIR, **{**BOX, **settings})
    assert passes == []


def test_what_cannot_be_drawn_loses_the_picture_only():
    def draw():
        raise ZeroDivisionError("no pen")

    with mlflow.start_run() as run, pytest.warns(CaptumLipschitzWarning, match=r"drawn \(ZeroDivisionError: no pen\)"):
        logged = log_ara(result_of([0.1, 0.2]), explanations=draw)
    assert sorted(logged.artifacts) == ["ara", "ara_curve", "ara_curve_plot"]
    assert files(run.info.run_id) == {"ara.json", "ara_curve.csv", "ara_curve.png"}
    assert mlflow.get_run(run.info.run_id).data.metrics["ara_images"] == 2


def test_the_picture_is_drawn_when_the_figures_are_logged():
    seen = {}

    with mlflow.start_run() as run:

        def draw():
            seen.update(mlflow.get_run(run.info.run_id).data.metrics)
            return curve_figure(result_of([0.1]))

        log_ara(result_of([0.1, 0.2]), explanations=draw)
    assert seen["ara_images"] == 2
    assert "ara_explanations.png" in files(run.info.run_id)


@pytest.mark.parametrize("names", [["cat", "dog", "owl"], {"0": "cat", "1": "dog", "2": "owl"}])
def test_class_names_are_drawn(names):
    figure = explanation_figure(network(), *PAIR, Settings.of({"class_names": names}))
    texts = " ".join(text.get_text() for text in figure.findobj(Text))
    assert all(name in texts for name in ("cat", "dog", "owl"))
    assert "class 0" not in texts


@pytest.mark.parametrize("name", ["ara-1.5 top", "größe", "a" * 230, ".a"])
def test_names_that_mlflow_takes(name):
    settings = Settings.of({"name": name})
    with mlflow.start_run() as run:
        log_ara(result_of([0.1, 0.2]), name=settings.name)
    assert mlflow.get_run(run.info.run_id).data.metrics[f"{name}_chance_accuracy"] == 0.25


def test_no_metric_is_logged_of_what_failed():
    with mlflow.start_run() as run, pytest.raises(InvalidTypeError):
        measure_ara(network(), (PAIR[0] * 255).to(torch.uint8), PAIR[1])
    assert mlflow.get_run(run.info.run_id).data.metrics == {}
