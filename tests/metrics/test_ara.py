"""accuracy_robustness_area: trusts no attack, hides nothing, leaves no trace."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from oracles import minimal_distances
from strategies import Case, build_batch, build_convolutional, cases, linear_cases
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from captum_lipschitz import (
    AraComparison,
    AraResult,
    AttackResult,
    Criterion,
    MinimumNormAttack,
    PaperAttack,
    Reaches,
    accuracy_robustness_area,
    compare,
)
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.area import area


@given(linear_cases())
def test_on_linear_models_the_area_is_that_of_the_closed_form(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    result = accuracy_robustness_area(case.model, (case.inputs, case.labels), norm="l2")
    exact = minimal_distances(case.model, case.inputs, case.labels, 2)
    assert result.area == pytest.approx(area(exact, 1 / case.model.out_features), rel=1e-4)
    assert result.clean_accuracy == 1.0
    assert result.not_found == 0
    assert result.interval[0] <= result.area <= result.interval[1] or len(exact) < 3


@given(cases(min_size=3))
def test_pairs_iterables_and_loaders_give_the_same(case: Case) -> None:
    whole = accuracy_robustness_area(case.model, (case.inputs, case.labels))
    batches = [(case.inputs[:2], case.labels[:2]), (case.inputs[2:], case.labels[2:])]
    loader = DataLoader(TensorDataset(case.inputs, case.labels), batch_size=2)
    for data in (batches, iter(batches), loader):
        other = accuracy_robustness_area(case.model, data)
        torch.testing.assert_close(other.distances, whole.distances, rtol=1e-6, atol=1e-9)
        assert other.area == pytest.approx(whole.area, rel=1e-6)
        assert torch.equal(other.labels, whole.labels)


def test_clean_accuracy_and_chance() -> None:
    inputs, labels = build_batch(0, 40)
    model = build_convolutional(1)
    result = accuracy_robustness_area(model, (inputs, labels), chance="majority")
    assert result.clean_accuracy == float((model(inputs).argmax(1) == labels).double().mean())
    assert result.chance_accuracy == float(labels.bincount().max()) / 40
    assert result.curve(0.0).item() == result.clean_accuracy
    assert accuracy_robustness_area(model, (inputs, labels)).chance_accuracy == 0.25
    assert accuracy_robustness_area(model, (inputs, labels), chance=0.0).chance_accuracy == 0.0


class _Liar:
    """Claims the clean image, or one outside [0, 1], as its answer for every image."""

    def __init__(self, inputs_become: float | None) -> None:
        self.inputs_become = inputs_become

    def __call__(self, model: object, inputs: Tensor, labels: Tensor, criterion: object = None) -> AttackResult:
        n = len(inputs)
        images = inputs if self.inputs_become is None else torch.full_like(inputs, self.inputs_become)
        return AttackResult(images, torch.zeros(n), torch.ones(n, dtype=torch.bool), torch.zeros(n, dtype=torch.int64))


def test_an_attack_is_never_taken_at_its_word() -> None:
    inputs, _ = build_batch(0, 6)
    model = build_convolutional(1)
    labels = model(inputs).argmax(1)
    with pytest.warns(CaptumLipschitzWarning, match="claimed 6 adversarial images that do not meet the criterion"):
        result = accuracy_robustness_area(model, (inputs, labels), attack=_Liar(None))
    assert result.not_found == 6
    assert result.area == math.inf
    assert result.truncated_area == 0.0
    assert result.interval == (math.inf, math.inf)
    assert "6 not found" in str(result)
    with pytest.warns(CaptumLipschitzWarning, match="leave the bounds"):
        outside = accuracy_robustness_area(model, (inputs, labels), attack=_Liar(1e3), bounds=(0, 1))
    assert outside.not_found == 6


def test_distances_are_measured_in_the_norm_asked_for() -> None:
    inputs, labels = build_batch(0, 10)
    model = build_convolutional(1)
    rmse = accuracy_robustness_area(model, (inputs, labels), attack=MinimumNormAttack(norm="l2"))
    l2 = accuracy_robustness_area(model, (inputs, labels), attack=MinimumNormAttack(norm="l2"), norm="l2")
    torch.testing.assert_close(rmse.distances * math.sqrt(50), l2.distances)
    assert (rmse.norm, l2.norm, l2.attack, l2.criterion) == ("rmse", "l2", "MinimumNormAttack", "Misclassified()")


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_leaves_no_trace_and_loses_nothing(error: BaseException | None) -> None:
    inputs, labels = build_batch(1, 6)
    model = build_convolutional(2)
    batches = [(inputs[:3], labels[:3]), (inputs[3:], labels[3:])]
    attack = PaperAttack(steps=10, rho=1.0)
    measured = model
    if error is not None:
        counting = Breaking(model, 10**6, error)
        accuracy_robustness_area(counting, batches[:1], attack=attack)
        measured = Breaking(model, 10**6 - counting.calls + 5, error).train()  # breaks in the second batch
    half_frozen(model)
    before = snapshot(measured, inputs, labels)
    if error is None:
        accuracy_robustness_area(measured, batches, attack=attack)
    else:
        with pytest.raises(type(error)) as caught:
            accuracy_robustness_area(measured, batches, attack=attack)
        torch.testing.assert_close(
            caught.value.partial_result.distances,
            accuracy_robustness_area(model, batches[:1], attack=attack).distances,
        )
    assert_unchanged(before, snapshot(measured, inputs, labels))


def test_results_repeat_to_the_bit_and_go_into_json() -> None:
    inputs, labels = build_batch(0, 12)
    model = build_convolutional(1)
    first, second = (accuracy_robustness_area(model, (inputs, labels)) for _ in range(2))
    assert first.to_dict() == second.to_dict()
    read = json.loads(json.dumps(first.to_dict(), allow_nan=False))
    assert read["area"] == first.area
    assert read["distances"] == first.distances.tolist()


def test_plot_draws_the_curve(tmp_path: object) -> None:
    import matplotlib as mpl

    mpl.use("Agg")
    inputs, labels = build_batch(0, 12)
    result = accuracy_robustness_area(build_convolutional(1), (inputs, labels))
    axes = result.plot(label="small")
    x, y = axes.lines[0].get_data()
    assert list(y) == result.curve(torch.as_tensor(x)).tolist()
    assert axes.get_legend().get_texts()[0].get_text() == f"small: ARA {result.area:.4g}"
    assert result.plot(axes, label="again") is axes


def test_progress_goes_to_the_error_stream(capsys: pytest.CaptureFixture[str]) -> None:
    inputs, labels = build_batch(0, 12)
    accuracy_robustness_area(build_convolutional(1), (inputs, labels), show_progress=True)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "12/12" in captured.err
    assert "ARA 0." in captured.err


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"attack": "paper"}, InvalidTypeError, r"create_attack\('paper'\)"),
        ({"attack": 3}, InvalidTypeError, "attack: expected an attack object, got 3"),
        ({"chance": "guess"}, InvalidInputError, "'uniform', 'majority' or a fraction"),
        ({"chance": 1.0}, InvalidInputError, "chance: expected"),
        ({"criterion": "btr"}, InvalidInputError, "criterion: expected one of"),
        ({"norm": "l0"}, InvalidInputError, "norm: expected one of"),
        ({"attack": PaperAttack(), "bounds": (0, 1)}, InvalidInputError, "bounds: expected those of the attack"),
        ({"data": []}, InvalidInputError, "data: expected at least one batch"),
        ({"data": 3}, InvalidTypeError, "data: expected"),
        ({"data": [3]}, InvalidTypeError, "data: expected batches"),
        ({"data": (torch.rand(3, 2), np.arange(3))}, InvalidTypeError, r"data: expected tensors .*\(Tensor, ndarray\)"),
        ({"data": torch.rand(3, 2, 5, 5)}, InvalidTypeError, "got Tensor"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], error: type[Exception], message: str) -> None:
    data = setting.pop("data", build_batch(0, 3))
    with pytest.raises(error, match=message):
        accuracy_robustness_area(build_convolutional(1), data, **setting)  # type: ignore[arg-type]


def _linear_result(seed: int, scale: float, count: int = 60) -> object:
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(4, 3)
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 4, generator=generator))
        model.bias.zero_()
        inputs = scale * torch.randn(count, 4, generator=generator)
        return accuracy_robustness_area(model, (inputs, model(inputs).argmax(1)))


def test_compare_pairs_the_images() -> None:
    one, twice = _linear_result(0, 1.0), _linear_result(0, 2.0)
    comparison = compare(twice, one)
    assert isinstance(comparison, AraComparison)
    assert comparison.ratio == pytest.approx(2.0, rel=1e-3)
    # The same images at twice the distance: the ratio has no uncertainty at all, though each area has.
    assert comparison.ratio_interval == pytest.approx((2.0, 2.0), rel=1e-3)
    assert one.interval[1] > 1.1 * one.interval[0]
    assert comparison.difference == pytest.approx(one.area, rel=1e-3)
    assert json.dumps(comparison.to_dict())
    assert "ratio 2 " in str(comparison)


def test_compare_refuses_what_cannot_be_compared() -> None:
    one = _linear_result(0, 1.0)
    with pytest.raises(InvalidInputError, match="the same images"):
        compare(one, _linear_result(0, 1.0, count=59))
    with pytest.raises(InvalidTypeError, match="a: expected an AraResult"):
        compare(3.0, one)
    inputs = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Linear(4, 3)
    other = accuracy_robustness_area(model, (inputs, one.labels), chance=0.0)
    with pytest.raises(InvalidInputError, match="expected chance_accuracy"):
        compare(one, other)


def test_compare_with_resamples_that_have_no_ratio() -> None:
    distances = torch.zeros(100)
    distances[:11] = torch.arange(1.0, 12.0)

    def result(factor: float) -> AraResult:
        one = _linear_result(0, 1.0, count=100)
        return replace(one, distances=factor * distances, area=area(factor * distances, 0.1), chance_accuracy=0.1)

    comparison = compare(result(2.0), result(1.0))
    assert comparison.ratio == 2.0
    assert comparison.ratio_interval == (-math.inf, math.inf)
    assert comparison.to_dict()["ratio_interval"] == [None, None]
    assert comparison.difference_interval[0] >= 0


def test_the_bootstraps_generator_is_used_and_checked_first() -> None:
    inputs, labels = build_batch(0, 30)
    model = build_convolutional(1)
    generator = torch.Generator().manual_seed(5)
    first, second = (accuracy_robustness_area(model, (inputs, labels), generator=generator) for _ in range(2))
    assert first.area == second.area
    assert first.interval != second.interval
    with pytest.raises(InvalidTypeError, match=r"generator: expected a torch\.Generator"):
        accuracy_robustness_area(Breaking(model, 0, AssertionError()), (inputs, labels), generator=42)


def test_targets_of_single_images_are_cut_into_batches_with_them() -> None:
    generator = torch.Generator().manual_seed(0)
    model = nn.Linear(3, 2)
    inputs = torch.randn(300, 3, generator=generator)
    labels = model(inputs).argmax(1)
    targeted = accuracy_robustness_area(model, (inputs, labels), criterion=Reaches(1 - labels))
    untargeted = accuracy_robustness_area(model, (inputs, labels))
    torch.testing.assert_close(targeted.distances, untargeted.distances, rtol=1e-3, atol=1e-6)
    with pytest.raises(InvalidInputError, match="for more images"):
        accuracy_robustness_area(model, (inputs, labels), criterion=Reaches(1 - labels[:280]))


def test_an_attacks_own_box_holds_for_doubts_too() -> None:
    """In black and white images a perturbation without a box is far smaller than one within it."""
    generator = torch.Generator().manual_seed(0)
    model = torch.nn.Linear(40, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(3, 40, generator=generator, dtype=torch.float64))
        images = torch.randint(2, (16, 40), generator=generator).double()
        labels = model(images).argmax(1)
    attack = MinimumNormAttack(effort="thorough", bounds=(0, 1))
    result = accuracy_robustness_area(model, (images, labels), attack=attack, doubts="full")
    told = accuracy_robustness_area(model, (images, labels), attack=attack, bounds=(0, 1), doubts="full")
    assert result.doubts == told.doubts == ()
    assert torch.equal(result.distances, told.distances)
    free = accuracy_robustness_area(model, (images, labels), doubts="off")
    assert bool((free.distances < 0.95 * result.distances).any())


def test_full_doubts_end_also_without_a_gradient() -> None:
    inputs, labels = build_batch(0, 12)
    model = build_convolutional(1)

    def without_gradient(images: Tensor) -> Tensor:
        with torch.no_grad():
            return model(images)

    class Noise:
        def __call__(self, model: object, inputs: Tensor, labels: Tensor, criterion: Criterion) -> AttackResult:
            noise = 3 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0), dtype=inputs.dtype)
            found = criterion.value(model(inputs + noise), labels) <= 0  # type: ignore[operator]
            sizes = noise.flatten(1).square().mean(1).sqrt()
            spent = torch.zeros(len(inputs), dtype=torch.int64)
            return AttackResult(inputs + noise, sizes.where(found, torch.inf), found, spent)

    quick, full = (
        accuracy_robustness_area(without_gradient, (inputs, labels), attack=Noise(), chance=0.5, doubts=depth)
        for depth in ("quick", "full")
    )
    assert torch.equal(quick.distances, full.distances)
    assert "more_effort_helps" not in [doubt.name for doubt in full.doubts]


def test_areas_in_other_units_are_not_compared() -> None:
    inputs, labels = build_batch(0, 10)
    model = build_convolutional(1)
    plain, scaled, by_feature = (
        accuracy_robustness_area(model, (inputs, labels), scale=scale, chance=0.0, doubts="off")
        for scale in (None, 10.0, torch.rand(2, 5, 5, generator=torch.Generator().manual_seed(0)).double() + 0.5)
    )
    assert (plain.norm, scaled.norm) == ("rmse", "rmse over scale 10")
    assert by_feature.norm.startswith("rmse over scale ")
    for other in (scaled, by_feature):
        with pytest.raises(InvalidInputError, match="b: expected norm 'rmse', got 'rmse over scale"):
            compare(plain, other)
    assert compare(by_feature, by_feature).ratio == 1.0


def test_a_later_batch_of_other_shape_is_named_when_its_turn_comes() -> None:
    inputs, labels = build_batch(0, 30)
    batches = [(inputs[:20], labels[:20]), (inputs[20:], labels[20:, None])]
    with pytest.raises(InvalidInputError, match=r"labels: expected one class per image, shape \(10,\)") as caught:
        accuracy_robustness_area(build_convolutional(1), batches)
    assert len(caught.value.partial_result.distances) == 20
