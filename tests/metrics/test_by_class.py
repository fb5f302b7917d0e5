"""Areas per class: the definition, what they do not depend on, and that nothing is hidden."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import macro_area, staircase_area
from strategies import build_batch, build_convolutional, distances, seeds
from torch import Tensor

from captum_lipschitz import AraResult, ClassArea, LabelFlips, accuracy_robustness_area
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.area import area
from captum_lipschitz.metrics.by_class import areas_by_class

chances = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5])


def _labels(count: int, seed: int, num_classes: int = 3) -> Tensor:
    return torch.randint(num_classes, (count,), generator=torch.Generator().manual_seed(seed))


@given(distances, seeds, chances)
def test_each_class_has_the_area_of_its_own_images(found: Tensor, seed: int, chance: float) -> None:
    labels = _labels(len(found), seed)
    by_class = areas_by_class(found, labels, found > 0, chance)
    assert list(by_class.classes) == sorted(set(labels.tolist()))
    for label, one in by_class.classes.items():
        rows = found[labels == label]
        assert one.label == label
        assert one.count == len(rows)
        assert one.area == pytest.approx(staircase_area(rows.tolist(), chance), abs=1e-7)
        assert one.truncated_area == area(rows, chance, truncated=True)
        assert one.not_found == int(torch.isinf(rows).sum())
        assert one.clean_accuracy == pytest.approx(float((rows > 0).double().mean()))
        assert one.interval[0] <= one.interval[1]
    assert by_class.macro_area == pytest.approx(macro_area(found, labels, chance), abs=1e-7)


@given(distances, seeds, chances, st.integers(2, 4))
def test_the_mean_does_not_depend_on_how_common_a_class_is(found: Tensor, seed: int, chance: float, times: int) -> None:
    labels = _labels(len(found), seed)
    first = labels == labels[0]
    more, more_labels = (torch.cat([values, *[values[first]] * (times - 1)]) for values in (found, labels))
    once, often = (
        areas_by_class(values, classes, values > 0, chance).macro_area
        for values, classes in ((found, labels), (more, more_labels))
    )
    assert often == pytest.approx(once, abs=1e-7)


@given(st.integers(1, 12), seeds, chances)
def test_of_balanced_images_the_mean_is_at_least_the_area(per_class: int, seed: int, chance: float) -> None:
    found = torch.rand(3 * per_class, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    labels = torch.arange(3 * per_class) % 3
    mean = areas_by_class(found, labels, found > 0, chance).macro_area
    assert mean >= area(found, chance) - 1e-12
    if chance == 0:
        assert mean == pytest.approx(area(found, 0.0))  # nothing lies below chance 0


def test_a_rare_class_that_breaks_at_once_shows_in_the_mean_and_not_in_the_area() -> None:
    found = torch.cat([torch.ones(99), torch.full((1,), 0.01)]).double()
    labels = torch.cat([torch.zeros(99), torch.ones(1)]).long()
    by_class = areas_by_class(found, labels, found > 0, 0.5)
    assert area(found, 0.5) == pytest.approx(0.4901)
    assert by_class.macro_area == pytest.approx((0.5 + 0.005) / 2)


def test_the_mean_resamples_within_classes() -> None:
    # Every class's distances are all equal: resampling among themselves changes nothing, resampling all would.
    found, labels = torch.tensor([1.0] * 5 + [3.0] * 20).double(), torch.tensor([0] * 5 + [1] * 20)
    by_class = areas_by_class(found, labels, found > 0, 0.0)
    assert by_class.macro_interval == (2.0, 2.0)
    varied = areas_by_class(found + torch.linspace(-0.5, 0.5, 25), labels, found > 0, 0.0)
    assert varied.macro_interval[0] < varied.macro_area < varied.macro_interval[1]
    low, high = varied.classes[1].interval
    assert low < varied.classes[1].area < high


def test_the_means_interval_covers_at_its_rate() -> None:
    # Thirty images uniform on [0, 1], ninety of another class on [0, 3], chance 0: the mean is (0.5 + 1.5) / 2.
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0] * 30 + [1] * 90)
    covered = 0
    for _ in range(200):
        found = torch.rand(120, generator=generator, dtype=torch.float64) * torch.where(labels == 1, 3.0, 1.0)
        low, high = areas_by_class(found, labels, found > 0, 0.0, generator=generator).macro_interval
        covered += low <= 1.0 <= high
    assert 0.90 <= covered / 200 <= 0.99


def _measured(**settings: object) -> AraResult:
    inputs, labels = build_batch(0, 40)
    model = build_convolutional(1)
    labels[:20] = model(inputs[:20]).argmax(1)
    return accuracy_robustness_area(model, (inputs, labels), **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(("chance", "within"), [("uniform", 0.25), ("majority", 0.25), (0.1, 0.1)])
def test_chance_within_a_class(chance: object, within: float) -> None:
    result = _measured(chance=chance)
    assert result.class_chance_accuracy == within
    for label, one in result.per_class().items():
        assert isinstance(one, ClassArea)
        rows = result.labels == label
        assert one.area == area(result.distances[rows], within)
        assert one.clean_accuracy == float(result.correct[rows].double().mean())
    assert result.macro_area == pytest.approx(macro_area(result.distances, result.labels, within))
    assert result.macro_interval[0] <= result.macro_area <= result.macro_interval[1]


def test_every_image_is_of_one_class_and_is_correct_or_not() -> None:
    result = _measured()
    classes = result.per_class().values()
    assert sum(one.count for one in classes) == len(result)
    assert sum(one.count * one.clean_accuracy for one in classes) == pytest.approx(40 * result.clean_accuracy)
    assert torch.equal(result.correct, result.distances > 0)


def test_the_figures_per_class_are_in_the_dictionary() -> None:
    result = _measured()
    result = replace(result, distances=result.distances.clone().index_fill_(0, torch.arange(40), math.inf))
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))["by_class"]
    assert [one["label"] for one in figures["classes"]] == list(result.per_class())
    assert figures["classes"][0]["area"] is None
    assert figures["classes"][0]["not_found"] == figures["classes"][0]["count"]
    assert figures["macro_area"] is None
    assert json.loads(json.dumps(result.to_dict()))["correct"] == result.correct.tolist()


def test_the_commonest_label_is_counted_over_all_batches() -> None:
    inputs, labels = build_batch(0, 12)
    labels = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 2, 3, 1, 1])  # each batch has another commonest label
    batches = list(zip(inputs.split(3), labels.split(3), strict=True))
    for data in (batches, iter(batches), (inputs, labels)):
        assert accuracy_robustness_area(build_convolutional(1), data, chance="majority").chance_accuracy == 4 / 12


def test_label_sets_have_no_classes() -> None:
    images, labels = torch.rand(4, 3), torch.ones(4, 3)
    result = accuracy_robustness_area(torch.nn.Linear(3, 3), (images, labels), criterion=LabelFlips(), chance=0.0)
    assert result.to_dict()["by_class"] is None
    assert result.labels.shape == (4, 3)
    with pytest.raises(InvalidInputError, match="labels: expected one class per image"):
        result.per_class()
    for chance in ("uniform", "majority"):
        with pytest.raises(InvalidInputError, match=r"chance: expected a fraction with LabelFlips\(\)"):
            accuracy_robustness_area(torch.nn.Linear(3, 3), (images, labels), criterion="label_flips", chance=chance)
