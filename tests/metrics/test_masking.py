"""find_doubts: each way of being wrong is seen on a model built for it, and clean models raise nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import Case, build_batch, build_convolutional, cases, linear_cases
from torch import Tensor, nn

from captum_lipschitz import (
    RMSE,
    BelowChance,
    Bounds,
    Criterion,
    Doubt,
    LabelFlips,
    MinimumNormAttack,
    Misclassified,
    PaperAttack,
    Reaches,
    accuracy_robustness_area,
)
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import find_doubts
from captum_lipschitz.metrics.measurement import AnyAttack, Measurement


def _measurement(
    model: object, criterion: Criterion | None = None, attack: AnyAttack | None = None, bounds: Bounds | None = None
) -> Measurement:
    attack = attack or MinimumNormAttack(bounds=bounds)
    return Measurement(model, attack, criterion or Misclassified(), RMSE(), bounds, None)  # type: ignore[arg-type]


def _names(doubts: tuple[Doubt, ...]) -> list[str]:
    return [doubt.name for doubt in doubts]


def _doubts_of(measurement: Measurement, images: Tensor, labels: Tensor, **settings: object) -> tuple[Doubt, ...]:
    part = measurement.run(images, labels, start=0)
    return find_doubts(measurement, images, labels, part.distances, **settings)  # type: ignore[arg-type]


def _smooth_case(dtype: torch.dtype = torch.float64) -> tuple[nn.Module, Tensor, Tensor]:
    model = build_convolutional(1, dtype=dtype)
    images, _ = build_batch(0, 8, dtype=dtype)
    return model, images, model(images).argmax(1)


@given(
    cases(), st.sampled_from([Misclassified(), BelowChance(), Reaches(1)]), st.sampled_from([None, Bounds(0.0, 1.0)])
)
def test_small_networks_raise_none(case: Case, criterion: Criterion, bounds: Bounds | None) -> None:
    for dtype in (torch.float64, torch.float32):
        measurement = _measurement(case.model.to(dtype), criterion, bounds=bounds)
        assert _doubts_of(measurement, case.inputs.to(dtype), case.labels) == ()


@settings(max_examples=8)
@given(linear_cases())
def test_linear_models_raise_none_even_on_a_closer_look(case: Case) -> None:
    assert _doubts_of(_measurement(case.model), case.inputs, case.labels, depth="full") == ()


def test_log_probabilities_are_logits() -> None:
    model, images, labels = _smooth_case()
    for criterion in (Misclassified(), BelowChance()):
        assert _doubts_of(_measurement(lambda x: model(x).log_softmax(1), criterion), images, labels) == ()


def test_dropout_behind_a_function_is_random_output() -> None:
    model, images, labels = _smooth_case()
    model[3].train()
    state = torch.get_rng_state()
    (doubt,) = find_doubts(_measurement(model.forward), images, labels, torch.ones(8))
    assert (doubt.name, doubt.severity) == ("random_output", "wrong")
    assert doubt.evidence["relative_change"] > 0.01
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("count", [2, 8])
def test_batch_statistics_behind_a_function_make_neighbours_matter(count: int) -> None:
    model, images, labels = _smooth_case()
    model[1].train()
    doubts = _doubts_of(_measurement(model.forward), images[:count], labels[:count])
    assert _names(doubts)[0] == "neighbours_matter"
    assert "random_output" not in _names(doubts)


def test_a_module_in_train_mode_is_noted_and_a_frozen_one_is_not() -> None:
    model, images, labels = _smooth_case()
    (doubt,) = _doubts_of(_measurement(model.train()), images, labels)
    assert (doubt.name, doubt.severity) == ("train_mode", "note")
    assert doubt.evidence == {"layers": 2.0}
    model[1].eval()
    model[3].eval()
    assert _doubts_of(_measurement(model), images, labels) == ()


def test_probabilities_are_told_from_logits() -> None:
    model, images, labels = _smooth_case()

    def softmax(x: Tensor) -> Tensor:
        return model(x).softmax(1)

    (loose,) = _doubts_of(_measurement(softmax), images, labels)
    wrong, *_ = _doubts_of(_measurement(softmax, BelowChance()), images, labels)
    assert (loose.name, loose.severity, wrong.name, wrong.severity) == (
        "probabilities",
        "loose",
        "probabilities",
        "wrong",
    )


def test_probabilities_of_several_labels() -> None:
    model, images, labels = _smooth_case()
    several = nn.functional.one_hot(labels, 4)
    clean = _doubts_of(_measurement(model, LabelFlips()), images, several)
    assert clean == ()
    assert "probabilities" in _names(
        _doubts_of(_measurement(lambda x: model(x).sigmoid(), LabelFlips()), images, several)
    )


def _stairs(x: Tensor) -> Tensor:
    """Rounded to steps, which have no gradient: what masks a network."""
    return (20 * x).round() / 20


class _Reversed(torch.autograd.Function):
    """The identity, with a gradient that points the wrong way."""

    @staticmethod
    def forward(_: object, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: object, grad: Tensor) -> Tensor:
        return -grad


def test_stairs_have_zero_gradients_and_lose_to_a_blind_attack() -> None:
    model, images, labels = _smooth_case()
    doubts = _doubts_of(_measurement(lambda x: model(_stairs(x)), attack=_gradients_only()), images, labels)
    by_name = {doubt.name: doubt for doubt in doubts}
    assert set(by_name) == {"zero_gradients", "blind_attack_wins"}
    assert by_name["zero_gradients"].evidence == {"images": 8.0, "share": 1.0}
    assert by_name["blind_attack_wins"].evidence["share"] > 0.5


def test_gradients_that_mislead_lose_to_a_blind_attack() -> None:
    model, images, labels = _smooth_case()
    doubts = _doubts_of(_measurement(lambda x: model(_Reversed.apply(x)), attack=_gradients_only()), images, labels)
    assert _names(doubts) == ["blind_attack_wins"]


@pytest.mark.parametrize("saturated", [lambda z: (1e4 * z).sigmoid() * 5, lambda z: z.clamp(-1e-6, 1e-6)])
def test_saturated_outputs_have_zero_gradients(saturated: Callable[[Tensor], Tensor]) -> None:
    model, images, labels = _smooth_case(torch.float32)
    doubts = _doubts_of(_measurement(lambda x: saturated(model(x))), images, saturated(model(images)).argmax(1))
    assert "zero_gradients" in _names(doubts)
    del labels


def test_gradients_that_are_not_finite() -> None:
    model, images, labels = _smooth_case()
    images = images.clone()
    images[2, 0, 0, 0] = 0.0
    labels = model(images).argmax(1)
    doubts = _doubts_of(_measurement(lambda x: model(x) + 0 * x[:, 0, 0, :1].sqrt()), images, labels)
    assert "undefined_gradients" in _names(doubts)
    assert doubts[0].evidence["images"] == 1.0


def test_float32_with_a_large_offset_is_coarse() -> None:
    model, images, labels = _smooth_case(torch.float32)
    doubts = _doubts_of(_measurement(lambda x: model(x) + 1e5), images, labels)
    assert "coarse_logits" in _names(doubts)


def test_a_weak_attack_is_loose_and_says_by_how_much() -> None:
    images, _ = build_batch(0, 8)
    model = build_convolutional(1)
    labels = model(images).argmax(1)
    weak = _measurement(model, attack=_weak())
    distances = weak.run(images, labels, start=0).distances
    assert "more_effort_helps" not in _names(find_doubts(weak, images, labels, distances))
    doubts = find_doubts(weak, images, labels, distances, depth="full")
    (doubt,) = [doubt for doubt in doubts if doubt.name == "more_effort_helps"]
    best = MinimumNormAttack(effort="thorough")(model, images, labels).distances.double()
    found = torch.isfinite(distances)
    ratio = (best.minimum(distances) / distances)[found].log().mean().exp()
    assert doubt.evidence["distances_fall"] == pytest.approx(1 - float(ratio))
    assert doubt.evidence["newly_found"] == float((~found).sum())


def test_a_model_without_gradients_measured_by_an_attack_that_needs_none() -> None:
    model, images, labels = _smooth_case()
    part = _measurement(model).run(images, labels, start=0)
    doubts = find_doubts(_measurement(lambda x: model(x).detach()), images, labels, part.distances)
    assert _names(doubts) == ["zero_gradients"]


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_leaves_no_trace(error: BaseException | None) -> None:
    model, images, labels = _smooth_case()
    distances = _measurement(model).run(images, labels, start=0).distances
    half_frozen(model)
    broken = model if error is None else Breaking(model, 9, error).train()
    before = snapshot(broken, images, labels, distances)
    if error is None:
        find_doubts(_measurement(broken), images, labels, distances, depth="full")
    else:
        with pytest.raises(type(error)):
            find_doubts(_measurement(broken), images, labels, distances)
    assert_unchanged(before, snapshot(broken, images, labels, distances))


def test_the_cost_is_what_the_documentation_says() -> None:
    model, images, labels = _smooth_case()
    seen = [0]

    def counting(x: Tensor) -> Tensor:
        seen[0] += len(x)
        return model(_stairs(x))

    distances = _measurement(model).run(images, labels, start=0).distances * 3  # beaten, so that bisections are paid
    assert "blind_attack_wins" in _names(find_doubts(_measurement(counting), images, labels, distances))
    assert seen[0] <= 37 * len(images)
    seen[0] = 0
    assert find_doubts(_measurement(counting), images, labels, distances, depth="off") == ()
    assert seen[0] == 0
    find_doubts(_measurement(counting), images, labels, distances, max_images=2)
    assert seen[0] <= 37 * 2


def test_the_same_seed_gives_the_same_doubts() -> None:
    model, images, labels = _smooth_case()
    measurement = _measurement(lambda x: model(_stairs(x)), attack=_gradients_only())
    first, second = (_doubts_of(measurement, images, labels) for _ in range(2))
    assert first == second
    other = _doubts_of(measurement, images, labels, generator=torch.Generator().manual_seed(5))
    assert _names(other) == _names(first)


def _gradients_only() -> PaperAttack:
    """An attack that is lost without gradients."""
    return PaperAttack(steps=30, rho=1.0)


def _weak() -> MinimumNormAttack:
    return MinimumNormAttack(steps=1)


def test_targets_of_single_images_go_with_their_chunk() -> None:
    model, images, labels = _smooth_case()
    measurement = _measurement(model, Reaches((labels + 1) % 4))
    part = measurement.run(images[5:], labels[5:], start=5)
    assert find_doubts(measurement, images[5:], labels[5:], part.distances, start=5) == ()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"depth": "deep"}, InvalidInputError, r"doubts: expected one of \['full', 'off', 'quick'\], got 'deep'"),
        ({"max_images": 0}, InvalidInputError, "max_images: expected at least 1, got 0"),
        ({"generator": 3}, InvalidTypeError, "generator: expected"),
        ({"distances": torch.zeros(3)}, InvalidInputError, "distances: expected one for each of 8 images, got 3"),
        ({"images": torch.zeros(0, 2)}, InvalidInputError, "images: expected a non-empty batch"),
        ({"labels": torch.zeros(8)}, InvalidTypeError, "labels: expected integer classes"),
    ],
)
def test_settings_are_checked(change: dict[str, object], error: type[Exception], message: str) -> None:
    model, images, labels = _smooth_case()
    use = {"images": images, "labels": labels, "distances": torch.ones(8)} | change
    with pytest.raises(error, match=message):
        find_doubts(_measurement(model), **use)  # type: ignore[arg-type]
    if "depth" in change:
        with pytest.raises(error, match=message):
            accuracy_robustness_area(Breaking(model, 0, AssertionError()), (images, labels), doubts=change["depth"])
