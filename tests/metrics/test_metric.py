"""AccuracyRobustnessArea: the function's figures, however the images are dealt out."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.figure
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, distances, seeds
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from workers import gather

from captum_lipschitz import AccuracyRobustnessArea, MinimumNormAttack, accuracy_robustness_area
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.area import area


def _rows(count: int, seed: int = 0, num_classes: int = 4) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    found = torch.rand(count, generator=generator, dtype=torch.float64)
    found[found < 0.2] = 0.0
    labels = torch.randint(num_classes, (count,), generator=generator)
    return {"distances": found, "correct": found > 0, "labels": labels, "indices": torch.arange(count)}


def _some(rows: dict[str, Tensor], index: list[int] | Tensor) -> dict[str, Tensor]:
    return {name: values[index] for name, values in rows.items()}


def _without(rows: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: values for name, values in rows.items() if name not in names}


def _filled(*updates: dict[str, Tensor], **settings: Any) -> AccuracyRobustnessArea:
    metric = AccuracyRobustnessArea(**{"num_classes": 4, **settings})
    for rows in updates:
        metric.update(**rows)
    return metric


@pytest.mark.parametrize("chance", ["uniform", "majority", 0.05])
def test_it_gives_the_functions_figures(chance: Any) -> None:
    inputs, labels = build_batch(0, 30)
    model = build_convolutional(1)
    expected = accuracy_robustness_area(model, (inputs, labels), chance=chance)
    metric, attack = AccuracyRobustnessArea(num_classes=4, chance=chance), MinimumNormAttack()
    metric.update(attack(model, inputs, labels).distances, model(inputs).argmax(1) == labels, labels, torch.arange(30))
    result = metric.result()
    assert metric.compute().item() == result.area == pytest.approx(expected.area, rel=1e-9)
    assert torch.equal(result.labels, expected.labels)
    assert torch.equal(result.correct, expected.correct)
    for name in ("clean_accuracy", "chance_accuracy", "class_chance_accuracy", "not_found", "norm", "criterion"):
        assert getattr(result, name) == getattr(expected, name), name
    assert result.macro_area == pytest.approx(expected.macro_area, rel=1e-9)


@given(distances, seeds, st.sampled_from([0.0, 0.1, 0.5]))
def test_repeated_images_count_once_in_whatever_order(found: Tensor, seed: int, chance: float) -> None:
    rows = {"distances": found, "correct": found > 0, "indices": 3 * torch.arange(len(found))}
    generator = torch.Generator().manual_seed(seed)
    dealt = torch.cat([torch.arange(len(found)), torch.randint(len(found), (7,), generator=generator)])
    dealt = dealt[torch.randperm(len(dealt), generator=generator)]
    once = _filled(rows, chance=chance)
    often = _filled(*(_some(rows, part) for part in dealt.split(4)), chance=chance)
    assert often.compute().item() == once.compute().item() == area(found, chance)
    assert torch.equal(often.result().distances, found)
    assert often.result().interval == once.result().interval


def test_without_indices_repeats_count_twice() -> None:
    rows = _without(_rows(10), "indices")
    metric = _filled(rows, _some(rows, [0, 1]))
    doubled = torch.cat([rows["distances"], rows["distances"][:2]])
    assert metric.compute().item() == area(doubled, 0.25)
    assert len(metric.result()) == 12


def test_of_two_answers_the_smaller_distance_counts_and_the_other_is_told_of() -> None:
    rows = _rows(6)
    rows["distances"][2] = 0.5
    other = _some(rows, [2])
    other["distances"] = torch.tensor([0.4], dtype=torch.float64)
    for updates in ((rows, other), (other, rows)):
        metric = _filled(*updates)
        with pytest.warns(CaptumLipschitzWarning, match="1 images came more than once with other answers"):
            result = metric.result()
        assert result.distances[2] == 0.4
    other["distances"] = rows["distances"][2:3] * (1 + 1e-7)  # rounding is no other answer
    assert _filled(rows, other).result().distances[2] == rows["distances"][2]


def test_indices_that_are_no_places_in_the_data_set() -> None:
    rows = _rows(6)
    other = _some(rows, [0])
    other["labels"] = (other["labels"] + 1) % 4
    with pytest.raises(InvalidInputError, match="expected an image's place in the data set, got 0 with two labels"):
        _filled(rows, other).compute()
    with pytest.raises(InvalidInputError, match="with every update or with none, got none for 6"):
        _filled(rows, _without(_rows(6), "indices")).compute()


@pytest.mark.slow
def test_two_processes_give_what_one_gives_to_the_bit(tmp_path: Path) -> None:
    rows = _rows(11)
    whole = {"chance": "majority", "num_classes": 4}
    padded = [[*range(0, 11, 2)], [*range(1, 11, 2), 0]]  # as DistributedSampler deals 11 images to 2 processes
    unknown = _without(rows, "indices")
    scenarios: list[tuple[dict[str, Any], Any]] = [
        (whole, [[_some(rows, padded[0][:4]), _some(rows, padded[0][4:])], [_some(rows, padded[1])]]),
        (whole, [[rows], []]),  # the second process has no image
        (whole, [[], [rows]]),
        (whole, [[_some(unknown, padded[0])], [_some(unknown, padded[1])]]),
        ({"num_classes": 4}, [[_without(_some(rows, padded[k]), "labels")] for k in (0, 1)]),
    ]
    torch.multiprocessing.spawn(gather, (str(tmp_path / "store"), str(tmp_path), scenarios), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    one = _filled(rows, chance="majority")
    expected = one.result()
    for answers in (first, second):
        for answer in answers[:3]:
            assert answer["area"].item() == one.compute().item() == expected.area
            assert answer["interval"] == expected.interval
            assert torch.equal(answer["distances"], expected.distances)
            assert torch.equal(answer["labels"], expected.labels)
            assert answer["macro_area"] == expected.macro_area
            assert not any("count twice" in text for text in answer["warnings"])
        repeated = _some(rows, padded[0] + padded[1])
        assert answers[3]["area"].item() == _filled(_without(repeated, "indices"), chance="majority").compute().item()
        assert len(answers[3]["distances"]) == 12
        assert any("count twice" in text for text in answers[3]["warnings"])
        assert answers[4]["area"].item() == area(rows["distances"], 0.25)
    assert [answer["own_updates"] for answer in first] == [2, 1, 0, 1, 1]  # afterwards each has its own images again
    assert [answer["own_updates"] for answer in second] == [1, 0, 1, 1, 1]


def test_copies_pickles_and_saved_states_go_on_where_it_stood(tmp_path: Path) -> None:
    rows = _rows(12)
    whole = _filled(rows).compute()
    half = _filled(_some(rows, torch.arange(6)))
    half.persistent(mode=True)
    torch.save(half.state_dict(), tmp_path / "state.pt")
    loaded = AccuracyRobustnessArea(num_classes=4)
    loaded.persistent(mode=True)
    loaded.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    for metric in (half.clone(), pickle.loads(pickle.dumps(half)), loaded):  # noqa: S301
        metric.update(**_some(rows, torch.arange(6, 12)))
        assert metric.compute() == whole
    assert half.compute() == area(rows["distances"][:6], 0.25)
    half.reset()
    with pytest.raises(InvalidInputError, match="at least one update"), pytest.warns(UserWarning, match="before"):
        half.compute()
    half.update(**rows)
    assert half.compute() == whole


def test_in_a_collection_each_has_its_own_chance() -> None:
    rows = _rows(12)
    collection = MetricCollection(
        {
            "uniform": AccuracyRobustnessArea(num_classes=4),
            "majority": AccuracyRobustnessArea(chance="majority"),
            "none": AccuracyRobustnessArea(chance=0.0),
        }
    )
    for part in torch.arange(12).split(5):
        collection.update(**_some(rows, part))
    share = float(rows["labels"].bincount().max()) / 12
    computed = {name: value.item() for name, value in collection.compute().items()}
    expected = {"uniform": 0.25, "majority": share, "none": 0.0}
    assert computed == {name: area(rows["distances"], chance) for name, chance in expected.items()}
    assert len(collection.compute_groups) == 1  # states are kept once


def test_forward_gives_the_batchs_area_and_gathers() -> None:
    rows = _rows(12)
    metric = AccuracyRobustnessArea(num_classes=4)
    for part in torch.arange(12).split(6):
        assert metric(**_some(rows, part)).item() == area(rows["distances"][part], 0.25)
    assert metric.compute().item() == area(rows["distances"], 0.25)


@pytest.mark.skipif(not hasattr(Metric, "merge_state"), reason="this torchmetrics cannot merge metrics")
def test_two_metrics_merge() -> None:
    rows = _rows(12)
    metric = _filled(_some(rows, torch.arange(8)))
    metric.merge_state(_filled(_some(rows, torch.arange(4, 12))))
    assert metric.compute().item() == area(rows["distances"], 0.25)


def test_what_torchmetrics_asks_of_a_metric() -> None:
    metric = _filled(_rows(5))
    assert (metric.higher_is_better, metric.is_differentiable, metric.full_state_update) == (True, False, False)
    assert metric.compute().shape == ()
    endless = _filled({"distances": torch.full((3,), math.inf), "correct": torch.ones(3, dtype=torch.bool)})
    assert endless.compute() == math.inf
    assert endless.result().not_found == 3
    with pytest.raises(InvalidInputError, match="one class per image"):
        endless.result().per_class()
    assert endless.result().to_dict()["by_class"] is None
    half = _filled({"distances": torch.tensor([0.5]).half(), "correct": torch.tensor([True])})
    assert half.compute().item() == 0.375


def test_plot_draws_the_curve_or_areas() -> None:
    mpl.use("Agg")
    metric = _filled(_rows(20))
    figure, axes = metric.plot()
    assert figure is axes.figure
    whole = mpl.figure.Figure()
    assert metric.plot(ax=whole.subfigures(1, 2)[1].subplots())[0] is whole
    assert axes.get_ylabel() == "accuracy"
    assert metric.plot(ax=axes)[1] is axes
    _, trend = metric.plot([torch.tensor(0.1), torch.tensor(0.2)])
    assert trend.lines[0].get_ydata().tolist() == pytest.approx([0.1, 0.2])


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({}, "num_classes: expected the number of classes for chance='uniform'"),
        ({"num_classes": 1}, "num_classes: expected at least 2"),
        ({"chance": "rare"}, "chance: expected"),
        ({"chance": 1.0}, "chance: expected"),
        ({"chance": 0.1, "norm": "l0"}, "norm: expected one of"),
        ({"chance": 0.1, "criterion": "btr"}, "criterion: expected one of"),
    ],
)
def test_settings_are_checked(setting: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        AccuracyRobustnessArea(**setting)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"distances": [0.1] * 5}, InvalidTypeError, "distances: expected a tensor, got list"),
        ({"distances": torch.arange(5)}, InvalidTypeError, "distances: expected floating"),
        ({"distances": torch.rand(5, 1)}, InvalidInputError, r"distances: expected one per image, .* got \(5, 1\)"),
        ({"distances": torch.rand(0)}, InvalidInputError, "distances: expected one per image"),
        ({"distances": torch.full((5,), -0.1)}, InvalidInputError, "distances: expected values of at least 0"),
        ({"distances": torch.full((5,), math.nan)}, InvalidInputError, "distances: expected values of at least 0"),
        ({"correct": torch.ones(5)}, InvalidTypeError, "correct: expected a tensor of bool, got torch.float32"),
        ({"correct": torch.ones(4, dtype=torch.bool)}, InvalidInputError, r"correct: expected one per image"),
        ({"labels": torch.full((5,), 4)}, InvalidInputError, r"labels: expected classes in 0\.\.3"),
        ({"labels": torch.zeros(5)}, InvalidTypeError, "labels: expected integer classes"),
        ({"labels": None}, InvalidInputError, "labels: expected classes for chance='majority'"),
        ({"indices": torch.arange(4)}, InvalidInputError, "indices: expected"),
        ({"indices": torch.arange(5) - 1}, InvalidInputError, "indices: expected places in the data set, from 0"),
    ],
)
def test_rows_are_checked_and_none_is_added(change: dict[str, Any], error: type[Exception], message: str) -> None:
    metric = AccuracyRobustnessArea(num_classes=4, chance="majority")
    with pytest.raises(error, match=message):
        metric.update(**{**_rows(5), **change})
    assert metric.distances == []
