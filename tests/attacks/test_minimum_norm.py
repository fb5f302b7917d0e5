"""The minimum-norm attack against closed forms, and what it promises beyond the common contract."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from oracles import boxed_distance, linear_distance, minimal_distances
from strategies import Case, build_batch, build_convolutional, cases, linear_cases, seeds
from torch import Tensor, nn

from captum_lipschitz import L2, BelowChance, LabelFlips, MinimumNormAttack, Reaches
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.models import PreActResNet44

BUDGETS = {"fast": 20, "standard": 100, "thorough": 450}
EFFORTS = list(BUDGETS)
Images = tuple[Tensor, Tensor]


def _effort(effort: str, **settings: Any) -> MinimumNormAttack:
    return MinimumNormAttack(effort=effort, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("effort", EFFORTS)
@settings(max_examples=8)
@given(linear_cases(), st.sampled_from(["rmse", "l2", "linf"]))
def test_linear_models_have_a_closed_form(effort: str, case: Case, norm: str) -> None:
    result = _effort(effort, norm=norm)(case.model, case.inputs, case.labels)
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
@example(232, "l2", 3)
def test_two_linear_classes_within_a_box(seed: int, norm: str, features: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    normal = torch.randn(features, generator=generator, dtype=torch.float64).exp()  # a few features dominate
    image = torch.rand(features, generator=generator, dtype=torch.float64)
    model = nn.Linear(features, 2).double()
    with torch.no_grad():
        model.weight.copy_(torch.stack([normal, torch.zeros_like(normal)]))
        model.bias.copy_(torch.tensor([-0.1 * float(normal @ image), 0.0]))
    offset, order = 0.9 * float(normal @ image), math.inf if norm == "linf" else 2
    exact = boxed_distance(normal, image, offset, order)
    result = MinimumNormAttack(norm=norm, bounds=(0, 1))(model, image[None], torch.tensor([0]))
    # An answer lies a little beyond the plane. With the dominant feature at its wall the others pay for that, many
    # times over: so it is held against the exact answer for a plane that is so much further away.
    assert exact * (1 - 1e-9) <= result.distances.item() <= boxed_distance(normal, image, offset * (1 + 1e-4), order)


def _linear(seed: int, features: int, num_classes: int = 5) -> tuple[nn.Linear, Tensor, Tensor]:
    """A linear model, ten images in [0, 1] and its decisions."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(features, num_classes).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(num_classes, features, generator=generator, dtype=torch.float64))
        model.bias.copy_(torch.randn(num_classes, generator=generator, dtype=torch.float64))
        inputs = torch.rand(10, features, generator=generator, dtype=torch.float64)
        return model, inputs, model(inputs).argmax(1)


@pytest.mark.parametrize(
    ("effort", "norm"),
    [
        ("fast", "rmse"),
        ("fast", "l2"),
        ("fast", "linf"),
        ("standard", "l2"),
        ("standard", "linf"),
        pytest.param("thorough", "l2", marks=pytest.mark.slow),
        pytest.param("thorough", "linf", marks=pytest.mark.slow),
    ],
)
def test_several_linear_classes_within_a_box(effort: str, norm: str) -> None:
    for seed, features in [(0, 4), (1, 6), (2, 20), (3, 60)]:
        model, inputs, labels = _linear(seed, features)
        ways = [[(j, [int(y)]) for j in range(5) if j != y] for y in labels]
        order = math.inf if norm == "linf" else 2
        exact = torch.tensor(
            [linear_distance(model, x, way, order, (0, 1)) for x, way in zip(inputs, ways, strict=True)],
            dtype=torch.float64,
        )
        if norm == "rmse":
            exact = exact / math.sqrt(features)
        result = _effort(effort, norm=norm, bounds=(0, 1))(model, inputs, labels)
        torch.testing.assert_close(result.distances, exact, rtol=1e-4, atol=0)


@pytest.mark.parametrize(("effort", "most"), [("fast", 1.04), ("standard", 1.02), ("thorough", 1.02)])
@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_a_target_among_several_linear_classes(effort: str, most: float, bounds: tuple[float, float] | None) -> None:
    # The nearest point is often where several boundaries meet, which no single linearisation shows: an upper bound.
    ratios = []
    for seed in range(3):
        model, inputs, labels = _linear(seed, 20)
        targets = (labels + 1 + torch.arange(10) % 4) % 5
        ways = [[(int(t), [j for j in range(5) if j != t])] for t in targets]
        exact = torch.tensor([linear_distance(model, x, way, 2, bounds) for x, way in zip(inputs, ways, strict=True)])
        result = _effort(effort, norm="l2", bounds=bounds)(model, inputs, labels, Reaches(targets))
        assert torch.equal(result.found, torch.isfinite(exact))
        ratios.append((result.distances / exact)[result.found])
    ratio = torch.cat(ratios)
    assert ratio.min() >= 1 - 1e-6
    assert ratio.log().mean().exp() <= most


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


@pytest.mark.parametrize("effort", EFFORTS)
@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_the_scale_of_the_logits_does_not_matter(effort: str, factor: float) -> None:
    inputs, labels = build_batch(5, 40)
    model = build_convolutional(6)
    plain = _effort(effort)(model, inputs, labels)
    scaled = _effort(effort)(lambda x: factor * model(x), inputs, labels)
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


@pytest.mark.parametrize("criterion", ["misclassified", "below_chance"])
def test_no_image_costs_more_than_its_budget(criterion: str) -> None:
    inputs, labels = build_batch(7, 12)
    model = build_convolutional(8)

    def steep(x: Tensor) -> Tensor:
        return torch.sin(20 * model(x))  # many boundaries: tracks go on for long

    for function in (model, steep, lambda x: 0 * model(x) + torch.eye(4, dtype=x.dtype)[labels[:1]]):
        for effort, budget in BUDGETS.items():
            assert _effort(effort)(function, inputs, labels, criterion).gradient_evaluations.max() <= budget
        for steps in (1, 3, 20, 50, 120):
            spent = MinimumNormAttack(steps=steps)(function, inputs, labels, criterion).gradient_evaluations
            assert spent.max() <= steps


@settings(max_examples=3)
@given(cases(min_size=4))
def test_below_chance_is_never_nearer_than_misclassified(case: Case) -> None:
    # What is below chance is misclassified. Both answers are upper bounds, so that a little is allowed.
    for effort in EFFORTS:
        attack = _effort(effort)(case.model, case.inputs, case.labels)
        below = _effort(effort)(case.model, case.inputs, case.labels, "below_chance")
        assert (attack.distances <= 1.005 * below.distances).all()


@settings(max_examples=3)
@given(cases(min_size=4))
def test_for_two_classes_of_a_network_both_criteria_are_one(case: Case) -> None:
    labels = case.labels % 2
    for effort in EFFORTS:
        one, other = (
            _effort(effort)(lambda x: case.model(x)[:, :2], case.inputs, labels, criterion).distances
            for criterion in ("misclassified", "below_chance")
        )
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-9)


def test_unknown_labels_of_one_image_are_no_business_of_the_others() -> None:
    inputs, _ = build_batch(1, 6)
    model = build_convolutional(2)
    labels = (model(inputs) > 0).long()
    labels[0, 1:], labels[2, :2], labels[4, 3] = -1, -1, -1
    for effort in EFFORTS:
        whole = _effort(effort)(model, inputs, labels, LabelFlips())
        for i in range(6):
            alone = _effort(effort)(model, inputs[i : i + 1], labels[i : i + 1], LabelFlips())
            torch.testing.assert_close(alone.distances[0], whole.distances[i], rtol=1e-6, atol=1e-9)
            assert alone.gradient_evaluations[0] == whole.gradient_evaluations[i]


@pytest.mark.parametrize("effort", EFFORTS)
def test_a_search_in_lower_precision_is_verified_in_full(effort: str) -> None:
    inputs, _ = build_batch(5, 24, dtype=torch.float32)
    model = build_convolutional(6, dtype=torch.float32)
    labels = model(inputs).argmax(1)
    plain = _effort(effort)(model, inputs, labels)
    lower = _effort(effort, autocast=torch.bfloat16)(model, inputs, labels)
    assert lower.found.all()
    assert lower.distances.dtype == torch.float32
    assert (model(lower.adversarial_inputs).argmax(1) != labels).all()
    # A perturbation below the resolution of bfloat16 in [0, 1] is not seen by such a search.
    seen = plain.distances > 2**-8
    assert seen.double().mean() > 0.9
    torch.testing.assert_close(lower.distances[seen], plain.distances[seen], rtol=0.03, atol=0)
    assert (lower.distances <= 1.2 * plain.distances).all()


def test_thorough_is_no_worse_than_standard_and_standard_than_fast() -> None:
    inputs, _ = build_batch(9, 24)
    model = build_convolutional(10)
    labels = model(inputs).argmax(1)
    fast, standard, thorough = (_effort(effort)(model, inputs, labels).distances.log().mean() for effort in EFFORTS)
    assert standard - fast <= math.log(1.02)
    assert thorough - standard <= math.log(1.02)


@pytest.mark.slow
def test_the_robust_network_alone_split_or_mixed(robust_network: PreActResNet44, cifar10_test: Images) -> None:
    images, labels = (part[:24] for part in cifar10_test)
    attack = MinimumNormAttack()
    whole = attack(robust_network, images, labels).distances
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    mixed = torch.empty_like(whole)
    mixed[order] = torch.cat([attack(robust_network, images[i], labels[i]).distances for i in order.split(10)])
    alone = torch.cat([attack(robust_network, x[None], y[None]).distances for x, y in zip(images, labels, strict=True)])
    for other in (mixed, alone):
        assert (other - whole).abs().le(0.01 * whole).double().mean() >= 0.95
        assert other.mean().item() == pytest.approx(whole.mean().item(), rel=0.005)


@pytest.mark.slow
def test_below_chance_on_the_robust_network(robust_network: PreActResNet44, cifar10_test: Images) -> None:
    images, labels = (part[:16] for part in cifar10_test)
    attack = MinimumNormAttack()
    near, far = (attack(robust_network, images, labels, name).distances for name in ("misclassified", "below_chance"))
    assert (near <= 1.005 * far).all()


def test_settings_are_checked() -> None:
    with pytest.raises(InvalidInputError, match="steps: expected at least 1, got 0"):
        MinimumNormAttack(steps=0)
    with pytest.raises(InvalidInputError, match=r"effort: expected one of \['fast', 'standard', 'thorough'\], got 'x'"):
        MinimumNormAttack(effort="x")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"autocast: expected torch\.bfloat16, torch\.float16 or None"):
        MinimumNormAttack(autocast=torch.int8)
    with pytest.raises(TypeError):
        MinimumNormAttack(10)  # type: ignore[misc]
