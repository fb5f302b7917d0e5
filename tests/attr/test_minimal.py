"""MinimalAdversarialAttribution: the smallest change that alters the decision."""

from __future__ import annotations

import pytest
import torch
from contracts import assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, build_batch, build_convolutional, cases, linear_cases
from torch import Tensor, nn

from captum_lipschitz import RMSE, Bounds, MinimalAdversarialAttribution, Reaches
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, ModelOutputError
from captum_lipschitz.models import PreActResNet44


def nearest_boundary(model: nn.Linear, inputs: Tensor, scale: Tensor) -> Tensor:
    """Closed form: of all other classes the nearest hyperplane, in units of ``scale``, as a change, (N, features)."""
    logits, rows = model(inputs).detach(), model.weight.detach()
    changes = []
    for z in logits:
        here = int(z.argmax())
        ways = []
        for other in range(len(z)):
            normal = (rows[here] - rows[other]) * scale
            ways.append(-(z[here] - z[other]) * normal / normal.square().sum() * scale if other != here else None)
        changes.append(min((w for w in ways if w is not None), key=lambda w: float((w / scale).norm())))
    return torch.stack(changes)


@given(linear_cases(), st.booleans())
def test_on_a_linear_model_it_is_the_closed_form(case: Case, scaled: bool) -> None:
    assert isinstance(case.model, nn.Linear)
    features = case.inputs.shape[1]
    scale = torch.linspace(0.5, 2, features, dtype=torch.float64) if scaled else torch.ones(features).double()
    change, value = MinimalAdversarialAttribution(case.model).attribute(
        case.inputs, scale=scale, return_convergence_delta=True
    )
    expected = nearest_boundary(case.model, case.inputs, scale)
    torch.testing.assert_close((change / scale).norm(dim=1), (expected / scale).norm(dim=1), rtol=1e-4, atol=0)
    assert (value <= 0).all()
    assert (value > -1e-3).all()
    assert (case.model(case.inputs + change).argmax(1) != case.labels).all()


@pytest.mark.slow
def test_it_flips_every_image_that_the_robust_network_decides_rightly(
    robust_network: PreActResNet44, cifar10_test: tuple[Tensor, Tensor]
) -> None:
    images, labels = (part[:64] for part in cifar10_test)
    change, value = MinimalAdversarialAttribution(robust_network).attribute(
        images, labels, return_convergence_delta=True
    )
    with torch.no_grad():
        before, after = robust_network(images).argmax(1), robust_network(images + change).argmax(1)
    right = before == labels
    assert int(right.sum()) == 44
    assert (after[right] != labels[right]).all()
    assert (change[~right] == 0).all()
    assert (value <= 0).all()
    assert 0.005 < float(RMSE().size(change)[right].median()) < 0.05


@given(cases(min_size=3, max_size=3))
def test_a_class_can_be_reached_and_criteria_are_objects_too(case: Case) -> None:
    attribution = MinimalAdversarialAttribution(case.model)
    reached = attribution.attribute(case.inputs, torch.tensor([0, 1, 2]), criterion="reaches", effort="fast")
    assert case.model(case.inputs + reached).argmax(1).tolist() == [0, 1, 2]
    goal = Reaches(torch.tensor([0, 1, 2]))
    again = attribution.attribute(case.inputs, criterion=goal, effort="fast", internal_batch_size=2)
    assert case.model(case.inputs + again).argmax(1).tolist() == [0, 1, 2]
    torch.testing.assert_close(again, reached, rtol=1e-5, atol=1e-8)
    chance = attribution.attribute(case.inputs, case.labels, criterion="below_chance", effort="fast")
    probability = case.model(case.inputs + chance).softmax(1)[torch.arange(3), case.labels]
    assert (probability <= 0.25 + 1e-9).all()


@given(cases(min_size=2))
def test_masked_features_and_bounds_hold(case: Case) -> None:
    mask = torch.zeros(5, 5)
    mask[1:4] = 1
    change, value = MinimalAdversarialAttribution(case.model).attribute(
        case.inputs, mask=mask, bounds=(-1, torch.full((5, 5), 2.0)), effort="fast", return_convergence_delta=True
    )
    assert (change[..., mask == 0] == 0).all()
    assert (case.inputs + change).min() >= -1 - 1e-12
    assert (case.inputs + change).max() <= 2 + 1e-12
    before, after = case.model(case.inputs).argmax(1), case.model(case.inputs + change).argmax(1)
    assert ((after != before) == (value <= 0)).all()


def test_an_example_has_the_same_answer_by_itself_with_a_scale_of_its_own() -> None:
    inputs, _ = build_batch(0, 3)
    scale = torch.rand(3, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.5
    attribution = MinimalAdversarialAttribution(build_convolutional(0))
    together = attribution.attribute(inputs, scale=scale, effort="fast")
    apart = torch.cat([attribution.attribute(inputs[i : i + 1], scale=scale[i], effort="fast") for i in range(3)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)
    low = Bounds(inputs - 0.5, inputs + 0.5)
    boxed = attribution.attribute(inputs, bounds=low, effort="fast", norm="l2")
    assert (boxed.abs() <= 0.5 + 1e-12).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_what_is_handed_back_flips_the_decision_when_it_is_added(dtype: torch.dtype) -> None:
    model = build_convolutional(3, dtype=torch.float32).to(dtype)
    inputs, _ = build_batch(5, 64, dtype=dtype)
    change, value = MinimalAdversarialAttribution(model).attribute(
        inputs, effort="fast", bounds=(0, 1), return_convergence_delta=True
    )
    assert change.dtype == dtype
    before, after = model(inputs).argmax(1), model(inputs + change).argmax(1)
    assert ((after != before) == (value <= 0)).all()
    assert (value <= 0).float().mean() > 0.9


def test_single_outputs_cross_their_threshold() -> None:
    inputs = torch.tensor([[1.0, 2.0], [-3.0, 1.0]], dtype=torch.float64)
    weight = torch.tensor([3.0, 4.0], dtype=torch.float64)
    attribution = MinimalAdversarialAttribution(lambda x: x @ weight)
    change = attribution.attribute(inputs, threshold=1.0, norm="l2")
    gap = inputs @ weight - 1.0
    torch.testing.assert_close(change, -gap[:, None] * weight / 25, rtol=1e-3, atol=1e-9)
    assert ((inputs + change) @ weight - 1.0).mul(gap).le(0).all()
    labels = MinimalAdversarialAttribution(lambda x: torch.stack([x @ weight, 5 - x @ weight], 1))
    one = labels.attribute(inputs, 1, objective="multi_label", norm="l2")
    assert ((5 - (inputs + one) @ weight) * (5 - inputs @ weight)).le(0).all()


def test_each_example_keeps_its_own_arguments() -> None:
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 6, 3, generator=generator, dtype=torch.float64)
    first, second = torch.randn(4, 4, generator=generator).double(), torch.randn(4, 2, generator=generator).double()

    def apart(a: Tensor, b: Tensor, own: Tensor) -> Tensor:
        return torch.einsum("nf,nfc->nc", torch.cat([a, b], 1), own)

    changes = MinimalAdversarialAttribution(apart).attribute((first, second), None, weights)
    for i in range(4):
        alone = nn.Linear(6, 3, bias=False).double()
        alone.weight.data = weights[i].T
        expected = nearest_boundary(alone, torch.cat([first, second], 1)[i : i + 1], torch.ones(6))
        torch.testing.assert_close(torch.cat([changes[0][i], changes[1][i]]).norm(), expected.norm(), rtol=1e-4, atol=0)


def test_arguments_that_all_examples_share_stay_whole_whatever_their_length() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    for rows in (2, 4, 8):
        shared = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
        for count in (1, 3, 5):  # of examples, never that many rows
            given = MinimalAdversarialAttribution(lambda x, w: x @ w.T).attribute(inputs[:count], None, shared)
            closed = MinimalAdversarialAttribution(lambda x, w=shared: x @ w.T).attribute(inputs[:count])
            torch.testing.assert_close(given, closed)
    prior = torch.tensor([3.0, -3.0], dtype=torch.float64)
    rows = inputs[:3, :2]
    # Within a search of three examples selections have two rows as well, as many as the argument.
    change = MinimalAdversarialAttribution(lambda x, p: x + p).attribute(rows, None, prior, effort="thorough")
    assert (((rows + change) + prior).argmax(1) != (rows + prior).argmax(1)).all()


def test_a_model_in_train_mode_is_asked_in_evaluation_mode_and_left_as_it_was() -> None:
    inputs, _ = build_batch(0, 4)
    model = build_convolutional(0)
    expected = MinimalAdversarialAttribution(model).attribute(inputs, effort="fast")
    half_frozen(model)
    before = snapshot(model, inputs)
    method = MinimalAdversarialAttribution(model)
    change = method.attribute(inputs, effort="fast")
    method.compute_log_odds_change(change, inputs)
    method.compute_convergence_delta(change, inputs)
    assert torch.equal(change, expected)
    assert_unchanged(before, snapshot(model, inputs))


@given(cases(min_size=2))
def test_what_is_told_of_a_change_is_what_attribute_told(case: Case) -> None:
    method = MinimalAdversarialAttribution(case.model)
    change, value = method.attribute(case.inputs, effort="fast", return_convergence_delta=True)
    torch.testing.assert_close(method.compute_convergence_delta(change, case.inputs, internal_batch_size=1), value)
    decided = case.model(case.inputs).argmax(1)
    moved = method.compute_log_odds_change(change, case.inputs)
    torch.testing.assert_close(moved, method.compute_log_odds_change(change, case.inputs, decided))
    assert (moved < 0).all()
    reached, value = method.attribute(case.inputs, 1, criterion="reaches", effort="fast", return_convergence_delta=True)
    again = method.compute_convergence_delta(reached, case.inputs, 1, criterion="reaches")
    torch.testing.assert_close(again, value)


def test_where_nothing_is_found_it_says_so() -> None:
    inputs = torch.tensor([[0.5, 0.5]])
    stubborn = MinimalAdversarialAttribution(lambda x: torch.stack([x.sum(1).tanh() + 3, x.sum(1).tanh()], 1))
    with pytest.warns(CaptumLipschitzWarning, match="for 1 of 1 examples no change was found"):
        change, value = stubborn.attribute(inputs, return_convergence_delta=True, effort="fast")
    assert not change.any()
    torch.testing.assert_close(value, torch.tensor([3.0]))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"criterion": "reached"}, "criterion: expected one of"),
        ({"objective": "loss"}, "objective: expected one of"),
        ({"threshold": float("nan")}, "threshold: expected a finite number"),
        ({"effort": "lazy"}, "effort: expected one of"),
        ({"objective": "output", "criterion": "below_chance", "target": 0}, "expected classes for 'below_chance'"),
        ({"criterion": "reaches"}, "target: expected the class to reach, got None"),
        ({"threshold": 1.0}, "threshold: expected 0 where the outputs are classes"),
        ({"target": [0, 1]}, "does not fit"),
        ({"internal_batch_size": 0}, "internal_batch_size: expected at least 1"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], message: str) -> None:
    inputs, _ = build_batch(0, 3)
    with pytest.raises(InvalidInputError, match=message):
        MinimalAdversarialAttribution(build_convolutional(1)).attribute(inputs, **setting)
    with pytest.raises(ModelOutputError, match="forward_func: expected one tensor, got tuple"):
        MinimalAdversarialAttribution(lambda x: (x,)).attribute(inputs, 0)
