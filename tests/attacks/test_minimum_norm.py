"""The minimum-norm attack against closed forms, and what it promises beyond the common contract."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import boxed_distance, minimal_distances
from strategies import Case, build_batch, build_convolutional, linear_cases, seeds
from torch import Tensor, nn

from captum_lipschitz import L2, BelowChance, MinimumNormAttack, Reaches
from captum_lipschitz.errors import InvalidInputError


@given(linear_cases(), st.sampled_from(["rmse", "l2", "linf"]))
def test_linear_models_have_a_closed_form(case: Case, norm: str) -> None:
    result = MinimumNormAttack(norm=norm)(case.model, case.inputs, case.labels)
    assert isinstance(case.model, nn.Linear)
    exact = minimal_distances(case.model, case.inputs, case.labels, math.inf if norm == "linf" else 2)
    if norm == "rmse":
        exact = exact / math.sqrt(case.inputs.shape[1])
    assert result.found.all()
    torch.testing.assert_close(result.distances, exact, rtol=1e-4, atol=0)


@given(linear_cases())
def test_for_two_classes_both_criteria_have_the_same_boundary(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    model = nn.Linear(case.model.in_features, 2).double()
    with torch.no_grad():
        model.weight.copy_(case.model.weight[:2])
        labels = model(case.inputs).argmax(1)
    exact = minimal_distances(model, case.inputs, labels, 2)
    result = MinimumNormAttack(norm="l2")(model, case.inputs, labels, BelowChance())
    torch.testing.assert_close(result.distances, exact, rtol=1e-4, atol=0)


@given(linear_cases())
def test_a_target_class_on_two_classes(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    model = nn.Linear(case.model.in_features, 2).double()
    labels = model(case.inputs).argmax(1)
    exact = minimal_distances(model, case.inputs, labels, 2)
    result = MinimumNormAttack(norm="l2")(model, case.inputs, labels, Reaches(1 - labels))
    torch.testing.assert_close(result.distances, exact, rtol=1e-4, atol=0)


@given(linear_cases())
def test_a_scale_measures_each_feature_in_its_own_unit(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    scale = torch.arange(1, case.inputs.shape[1] + 1, dtype=torch.float64)
    scaled = nn.Linear(case.model.in_features, case.model.out_features).double()
    with torch.no_grad():
        scaled.weight.copy_(case.model.weight * scale)
        scaled.bias.copy_(case.model.bias)
    exact = minimal_distances(scaled, case.inputs / scale, case.labels, 2)
    result = MinimumNormAttack(norm=L2(scale))(case.model, case.inputs, case.labels)
    torch.testing.assert_close(result.distances, exact, rtol=1e-4, atol=0)


def test_a_box_that_forbids_the_nearest_boundary() -> None:
    # z_0 - z_1 = x_0 + x_1 - 0.2: from (0.1, 1) the nearest point of the line leaves the box; inside it is (0, 0.2).
    model = nn.Linear(2, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 1.0], [0.0, 0.0]]))
        model.bias.copy_(torch.tensor([-0.2, 0.0]))
    inputs, labels = torch.tensor([[0.1, 1.0]], dtype=torch.float64), torch.tensor([0])
    free = MinimumNormAttack(norm="l2")(model, inputs, labels)
    boxed = MinimumNormAttack(norm="l2", bounds=(0, 1))(model, inputs, labels)
    assert free.distances.item() == pytest.approx(0.9 / math.sqrt(2), rel=1e-4)
    assert boxed.distances.item() == pytest.approx(math.hypot(0.1, 0.8), rel=1e-4)
    assert boxed.adversarial_inputs.min() >= 0


@given(seeds, st.sampled_from(["l2", "linf"]), st.sampled_from([3, 50, 400]))
def test_two_linear_classes_within_a_box(seed: int, norm: str, features: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(features, generator=generator, dtype=torch.float64).exp()  # a few features dominate
    image = torch.rand(features, generator=generator, dtype=torch.float64)
    model = nn.Linear(features, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([normal, torch.zeros_like(normal)]))
        model.bias.copy_(torch.tensor([-0.1 * float(normal @ image), 0.0]))
    exact = boxed_distance(normal, image, 0.9 * float(normal @ image), math.inf if norm == "linf" else 2)
    result = MinimumNormAttack(norm=norm, bounds=(0, 1))(model, image[None], torch.tensor([0]))
    assert result.distances.item() == pytest.approx(exact, rel=1e-4)


@given(linear_cases())
def test_what_no_perturbation_reaches_is_infinite_and_counted(case: Case) -> None:
    def steady(inputs: Tensor) -> Tensor:
        logits: Tensor = case.model(inputs)
        return torch.stack([logits[:, 0].square() + 1, -logits[:, 1].square()], 1)

    labels = torch.zeros(len(case.inputs), dtype=torch.int64)
    result = MinimumNormAttack()(steady, case.inputs, labels)
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert torch.equal(result.adversarial_inputs, case.inputs)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_logits_does_not_matter(factor: float) -> None:
    inputs, labels = build_batch(5, 40)
    model = build_convolutional(6)
    plain = MinimumNormAttack()(model, inputs, labels)
    scaled = MinimumNormAttack()(lambda x: factor * model(x), inputs, labels)
    assert plain.found.all()
    assert (plain.distances > 0).any()
    torch.testing.assert_close(scaled.distances, plain.distances, rtol=0.01, atol=0)


def test_more_steps_never_hurt_much_and_solved_images_cost_less() -> None:
    inputs, labels = build_batch(7, 40)
    model = build_convolutional(8)
    short, long = (MinimumNormAttack(steps=n)(model, inputs, labels) for n in (10, 100))
    open_rows = short.distances > 0
    assert (long.distances <= 1.01 * short.distances)[open_rows].all()
    # Nine backward passes choose the first move of at most 100 steps; converged images leave long before.
    assert long.gradient_evaluations.max() <= 100 + 3
    assert long.gradient_evaluations[open_rows].double().mean() < 90


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="steps: expected at least 1, got 0"):
        MinimumNormAttack(steps=0)
    with pytest.raises(InvalidInputError, match=r"effort: expected one of \['fast', 'standard', 'thorough'\], got 'x'"):
        MinimumNormAttack(effort="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="autocast: expected torch.bfloat16, torch.float16 or None"):
        MinimumNormAttack(autocast=torch.int8)
    with pytest.raises(TypeError):
        MinimumNormAttack(10)  # type: ignore[misc]
