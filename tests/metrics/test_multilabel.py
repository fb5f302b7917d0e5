"""Areas per label of a model that decides several labels: closed forms, unknown labels, nothing lost."""

from __future__ import annotations

import json
import math

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from oracles import staircase_area
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor, nn

from captum_lipschitz import (
    AttackResult,
    LabelFlips,
    MultilabelResult,
    accuracy_robustness_area,
    multilabel_robustness_areas,
)
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.ara import POOL
from captum_lipschitz.metrics.area import percentile_interval
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.metrics.measurement import Measurement


def _linear(seed: int, num_labels: int, count: int = 30) -> tuple[nn.Linear, Tensor, Tensor]:
    """A linear model, inputs, and labels of which some are wrong and some, never label 0's, unknown."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(5, num_labels).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(num_labels, 5, generator=generator))
        model.bias.zero_()
        inputs = torch.randn(count, 5, generator=generator, dtype=torch.float64)
        labels = (model(inputs) > 0).long()
    draws = torch.rand(labels.shape, generator=generator)
    labels = torch.where(draws < 0.2, 1 - labels, labels)
    labels[:, 1:] = torch.where(draws[:, 1:] > 0.8, -1, labels[:, 1:])
    return model, inputs, labels


@torch.no_grad()
def _closed_form(model: nn.Linear, inputs: Tensor, labels: Tensor, k: int) -> list[float]:
    logits, size = model(inputs)[:, k], float(model.weight[k].norm())
    return [
        abs(float(z)) / size if (z > 0) == (y == 1) else 0.0
        for z, y in zip(logits, labels[:, k], strict=True)
        if y >= 0
    ]


@given(seeds, st.integers(1, 4))
def test_on_linear_models_each_area_is_that_of_the_closed_form(seed: int, num_labels: int) -> None:
    model, inputs, labels = _linear(seed, num_labels)
    result = multilabel_robustness_areas(model, (inputs, labels), norm="l2")
    assert isinstance(result, MultilabelResult)
    for k in range(num_labels):
        exact = _closed_form(model, inputs, labels, k)
        known = labels[labels[:, k] >= 0, k]
        one = result.labels[k]
        share = float((known == 1).double().mean())
        assert one.distances.tolist() == pytest.approx(exact, rel=1e-4)
        assert one.labels.tolist() == known.tolist()
        assert one.chance_accuracy == pytest.approx(max(share, 1 - share))
        assert one.clean_accuracy == pytest.approx(sum(d > 0 for d in exact) / len(exact))
        assert one.area == pytest.approx(staircase_area(one.distances.tolist(), one.chance_accuracy), abs=1e-9)
        assert (one.criterion, one.norm) == (f"LabelFlips(label={k})", "l2")
        assert result.unknown[k] == 30 - len(known) == 30 - len(one)
    assert result.macro_area == pytest.approx(sum(one.area for one in result.labels.values()) / num_labels)
    assert result.macro_interval[0] <= result.macro_area <= result.macro_interval[1]


def test_pairs_and_one_shot_batches_give_the_same_and_leave_no_trace() -> None:
    model = half_frozen(build_convolutional(1)).train()
    inputs, _ = build_batch(0, 9)
    labels = torch.randint(-1, 2, (9, 4), generator=torch.Generator().manual_seed(0)).float()
    labels[4:7, 1] = -1  # a batch in which label 1 is known for no image
    before = snapshot(model, inputs)
    whole = multilabel_robustness_areas(model, (inputs, labels), chance=0.0)
    parts = multilabel_robustness_areas(model, ((inputs[i : i + 3], labels[i : i + 3]) for i in (0, 3, 6)), chance=0.0)
    assert_unchanged(before, snapshot(model, inputs))
    assert parts.unknown == whole.unknown
    for k, one in whole.labels.items():
        torch.testing.assert_close(parts.labels[k].distances, one.distances, rtol=1e-6, atol=1e-9)


def test_each_label_is_what_the_criterion_gives_by_itself() -> None:
    model, inputs, labels = _linear(3, 3)
    result = multilabel_robustness_areas(model, (inputs, labels), which=[2, 0], chance="uniform")
    assert list(result.labels) == [2, 0]
    known = labels[:, 2] >= 0
    alone = accuracy_robustness_area(model, (inputs[known], labels[known]), criterion=LabelFlips(2))
    assert torch.equal(result.labels[2].distances, alone.distances)
    assert result.labels[2].chance_accuracy == alone.chance_accuracy == 0.5
    assert list(result.labels[2].per_class()) == [0, 1]


def test_each_label_has_its_doubts() -> None:
    model, inputs, labels = _linear(0, 2)
    probable = nn.Sequential(model, nn.Sigmoid())  # never below 0: label 0 is decided to be there everywhere
    doubted = multilabel_robustness_areas(probable, (inputs, labels), attack=_Idle())
    assert "not_found" in [doubt.name for doubt in doubted.labels[0].doubts]
    assert "label 1, doubt (" in str(doubted)
    quiet = multilabel_robustness_areas(model, (inputs, labels), doubts="off")
    assert not any(one.doubts for one in quiet.labels.values())
    torch.manual_seed(0)
    with pytest.warns(CaptumLipschitzWarning, match="do not meet the criterion"):
        noisy = multilabel_robustness_areas(lambda x: model(x) + torch.randn(len(x), 2), (inputs, labels))
    assert "random_output" in [doubt.name for doubt in noisy.labels[1].doubts]


def test_a_label_that_is_never_known_is_counted_and_not_measured() -> None:
    model, inputs, labels = _linear(0, 3)
    labels[:, 1] = -1
    result = multilabel_robustness_areas(model, (inputs, labels))
    assert list(result.labels) == [0, 2]
    assert result.unknown[1] == 30
    figures = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert [(one["label"], one["result"] is None) for one in figures["labels"]] == [(0, False), (1, True), (2, False)]
    assert str(result).startswith("mean ARA of 2 labels ")
    with pytest.raises(InvalidInputError, match="data: expected a label that is known for some image"):
        multilabel_robustness_areas(model, (inputs, torch.full_like(labels, -1)))


def test_the_means_interval_draws_the_same_images_for_all_labels() -> None:
    # Label 1 is the first one again: the mean varies as much as either, not less.
    model, inputs, labels = _linear(0, 1, count=80)
    twice = nn.Linear(5, 2).double()
    with torch.no_grad():
        twice.weight.copy_(model.weight.expand(2, 5))
        twice.bias.zero_()
    both = multilabel_robustness_areas(twice, (inputs, labels.expand(80, 2)), chance=0.0)
    low, high = both.macro_interval
    assert high - low > 0.2 * both.macro_area
    one = both.labels[0].interval
    assert high - low == pytest.approx(one[1] - one[0], rel=0.1)


def test_the_means_interval_is_a_resampling_of_images_where_some_labels_are_unknown() -> None:
    model, inputs, labels = _linear(1, 2, count=12)
    assert 0 < int((labels[:, 1] < 0).sum()) < 6
    result = multilabel_robustness_areas(
        model, (inputs, labels), chance=0.0, generator=torch.Generator().manual_seed(7), doubts="off"
    )
    draws = torch.Generator().manual_seed(7)
    for one in result.labels.values():
        torch.randint(len(one), (2000, len(one)), generator=draws)  # each label's own interval comes first
    means = []
    for chosen in torch.randint(12, (2000, 12), generator=draws).tolist():
        areas = []
        for k, one in result.labels.items():
            place = {image: row for row, image in enumerate((labels[:, k] >= 0).nonzero().flatten().tolist())}
            areas.append(float(one.distances[[place[image] for image in chosen if image in place]].mean()))
        means.append(sum(areas) / 2)
    assert result.macro_interval == pytest.approx(
        percentile_interval(torch.tensor(means, dtype=torch.float64)), abs=1e-9
    )


class _Idle:
    """Finds nothing."""

    def __call__(self, model: object, inputs: Tensor, labels: Tensor, criterion: object = None) -> AttackResult:
        n = len(inputs)
        return AttackResult(
            inputs, torch.full((n,), math.inf), torch.zeros(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64)
        )


def test_images_without_an_answer_make_the_area_endless() -> None:
    model, inputs, labels = _linear(0, 2)
    result = multilabel_robustness_areas(model, (inputs, labels), attack=_Idle(), chance=0.1)
    assert result.labels[0].not_found > 3
    assert result.macro_area == math.inf
    assert result.to_dict()["macro_area"] is None


@pytest.mark.parametrize("error", [RuntimeError("broken"), KeyboardInterrupt()])
def test_what_was_finished_is_kept(error: BaseException) -> None:
    model, inputs, labels = _linear(0, 2, count=POOL + 6)
    labels = labels.abs()

    def broken() -> object:
        yield inputs[:POOL], labels[:POOL]  # read ahead
        yield inputs[POOL:], labels[POOL:]
        raise error

    with pytest.raises(type(error)) as caught:
        multilabel_robustness_areas(model, broken())
    assert [len(one) for one in caught.value.partial_result.labels.values()] == [POOL + 6, POOL + 6]
    del error.partial_result  # type: ignore[attr-defined]
    with pytest.raises(type(error)) as caught:
        multilabel_robustness_areas(Breaking(model, 4, error), (inputs, labels))
    assert not hasattr(caught.value, "partial_result")


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"which": [3]}, InvalidInputError, r"which: expected labels in 0\.\.2"),
        ({"which": []}, InvalidInputError, r"which: expected labels in 0\.\.2"),
        ({"which": [-1]}, InvalidInputError, "label: expected a whole number from 0"),
        ({"chance": "rare"}, InvalidInputError, "chance: expected"),
        ({"doubts": "some"}, InvalidInputError, "doubts: expected one of"),
        ({"data": (torch.rand(3, 5), torch.tensor([0, 1, 2]))}, InvalidInputError, r"shape \(3, K\), got \(3,\)"),
        ({"data": (torch.rand(3, 5).double(), torch.ones(3, 2))}, InvalidInputError, r"\(3, 3\), got \(3, 2\)"),
        ({"data": []}, InvalidInputError, "data: expected at least one batch"),
        ({"data": 3}, InvalidTypeError, "data: expected"),
        ({"attack": "paper"}, InvalidTypeError, "attack: expected an attack object"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], error: type[Exception], message: str) -> None:
    model, inputs, labels = _linear(0, 3)
    data = setting.pop("data", (inputs, labels))
    with pytest.raises(error, match=message):
        multilabel_robustness_areas(model, data, **setting)  # type: ignore[arg-type]


def test_claims_are_checked_for_labels_too() -> None:
    class Liar(_Idle):
        def __call__(self, model: object, inputs: Tensor, labels: Tensor, criterion: object = None) -> AttackResult:
            honest = super().__call__(model, inputs, labels, criterion)
            return AttackResult(inputs, torch.zeros(len(inputs)), ~honest.found, honest.gradient_evaluations)

    model, inputs, labels = _linear(0, 1)
    with pytest.warns(CaptumLipschitzWarning, match="do not meet the criterion"):
        result = multilabel_robustness_areas(model, (inputs, labels), attack=Liar())
    assert result.labels[0].not_found == int(result.labels[0].correct.sum())


def test_doubts_are_looked_for_on_sixteen_images_whatever_the_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs, labels = _linear(0, 3, count=24)
    labels[:, 2] = torch.where(torch.arange(24) < 20, -1, labels[:, 2].abs())  # known for four images only
    seen = {}

    def watching(
        measurement: Measurement, images: Tensor, labels: Tensor, distances: Tensor, **others: object
    ) -> tuple[Doubt, ...]:
        assert len(images) == len(labels) == len(distances)
        seen[measurement.criterion.label] = (len(images), others["max_images"])
        return ()

    monkeypatch.setattr("captum_lipschitz.metrics.multilabel.find_doubts", watching)
    multilabel_robustness_areas(model, zip(inputs.split(2), labels.split(2), strict=True))
    assert seen[0] == (16, 16)
    assert seen[2] == (4, 16)
    assert set(seen) == {0, 1, 2}
