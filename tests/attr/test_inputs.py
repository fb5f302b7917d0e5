"""What attributions take: any dimensions, several inputs with budgets of their own, limits, objectives, precisions."""

from __future__ import annotations

import math
from collections import OrderedDict
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, build_batch, build_convolutional, cases
from torch import Tensor, nn

from captum_lipschitz import L2, RMSE, AdversarialAttribution, Linf
from captum_lipschitz.attr._targets import Evidence, settle
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.objectives import log_odds

OUTPUT = {"objective": "output", "n_steps": 200}


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3), (6, 2, 5), (6, 1, 2, 3, 2), (6, 2, 1, 2, 1, 2)])
def test_any_number_of_dimensions(shape: tuple[int, ...]) -> None:
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.randn(shape[1:], generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    change = AdversarialAttribution(lambda x: (x * weight).reshape(6, -1).sum(1)).attribute(inputs, **OUTPUT)
    expected = 0.1 * RMSE().steepest(weight.reshape(1, -1)).reshape(1, *shape[1:]).expand(shape)
    # Once at its size the walk goes to and fro around it, by steps of less than 1 / 200.
    torch.testing.assert_close(change, expected, rtol=0.06, atol=0)


@given(st.floats(0.01, 2), st.floats(0.01, 2), st.sampled_from(["rmse", "l2", "linf"]))
def test_a_budget_for_each_input(first: float, second: float, norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, n, generator=generator, dtype=torch.float64) for n in (3, 5))
    u, v = (torch.randn(n, generator=generator, dtype=torch.float64) for n in (3, 5))
    method = AdversarialAttribution(lambda x, y: x @ u + y @ v)
    changes, delta = method.attribute((a, b), rho=(first, second), norm=norm, return_convergence_delta=True, **OUTPUT)
    for change, inputs, weight, rho in zip(changes, (a, b), (u, v), (first, second), strict=True):
        alone = AdversarialAttribution(lambda x, w=weight: x @ w).attribute(inputs, rho=rho, norm=norm, **OUTPUT)
        torch.testing.assert_close(change, alone, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(method.compute_convergence_delta(changes, rho=(first, second), norm=norm), delta)
    assert (delta.abs() <= 0.06 * max(first, second)).all()
    only = method.attribute((a, b), rho=(first, 0.0), norm=norm, **OUTPUT)
    torch.testing.assert_close(only[0], changes[0], rtol=1e-9, atol=1e-12)
    assert not only[1].any()


def test_the_size_that_differs_most_is_told_whichever_way() -> None:
    changes = torch.tensor([[0.1], [0.6]]), torch.tensor([[0.3], [0.3]])
    delta = AdversarialAttribution(lambda x, y: x + y).compute_convergence_delta(changes, rho=(0.5, 0.2), norm="l2")
    torch.testing.assert_close(delta, torch.tensor([-0.4, 0.1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_evidence_is_read_in_single_precision_at_least(dtype: torch.dtype) -> None:
    """Confident logits, whose log-odds half precision would round by far more than the logits themselves."""
    logits = torch.tensor([[9.0, 0.0, 1.5], [0.0, 7.0, 3.0]], dtype=dtype)
    labels = torch.tensor([0, 2])
    evidence = Evidence(partial(settle, target=labels, objective="log_odds", num_rows=2))
    wide = torch.promote_types(dtype, torch.float32)
    assert torch.equal(evidence(logits), log_odds(logits.to(wide), labels))
    assert evidence(logits).dtype == wide


@given(cases(min_size=2))
def test_each_feature_has_limits_of_its_own(case: Case) -> None:
    low = torch.linspace(-0.3, 0.0, 5, dtype=torch.float64)
    high = torch.linspace(1.0, 1.1, 50, dtype=torch.float64).reshape(2, 5, 5)
    change = AdversarialAttribution(case.model).attribute(case.inputs, case.labels, rho=0.5, bounds=(low, high))
    assert (case.inputs + change >= low - 1e-12).all()
    assert (case.inputs + change <= high + 1e-12).all()
    assert (case.inputs + change < 0).any()
    both = AdversarialAttribution(lambda x, y: case.model(x + y))
    first, second = both.attribute(
        (case.inputs, 0 * case.inputs), case.labels, rho=0.5, bounds=((low, -0.01), (high, 0.02))
    )
    assert (case.inputs + first >= low - 1e-12).all()
    assert second.min() >= -0.01 - 1e-12
    assert second.max() <= 0.02 + 1e-12
    for bounds in [(torch.zeros(7), 1.0), (2.0, torch.ones(5)), (0.0, 1.0, 2.0), "01"]:
        with pytest.raises((InvalidInputError, InvalidTypeError), match="bounds"):
            AdversarialAttribution(case.model).attribute(case.inputs, case.labels, bounds=bounds)


@given(cases(min_size=2))
def test_objectives_by_name(case: Case) -> None:
    method = AdversarialAttribution(case.model)
    settings = {"n_steps": 6, "rho": 0.05}
    output = method.attribute(case.inputs, 2, objective="output", **settings)
    for name in ("multi_label", "regression"):
        assert torch.equal(method.attribute(case.inputs, 2, objective=name, **settings), output)
    only = AdversarialAttribution(lambda x: case.model(x)[:, 2]).attribute(case.inputs, **settings)
    torch.testing.assert_close(only, output, rtol=1e-9, atol=1e-12)
    before, after = case.model(case.inputs)[:, 2], case.model(case.inputs + output)[:, 2]
    moved = method.compute_log_odds_change(output, case.inputs, 2, objective="regression", internal_batch_size=1)
    torch.testing.assert_close(moved, (after - before).detach())
    odds = method.attribute(case.inputs, 2, **settings)
    expected = log_odds(case.model(case.inputs + odds), torch.full_like(case.labels, 2)) - log_odds(
        case.model(case.inputs), torch.full_like(case.labels, 2)
    )
    torch.testing.assert_close(method.compute_log_odds_change(odds, case.inputs, 2), expected.detach())
    with pytest.raises(ModelOutputError, match=r"expected outputs of shape \(.*, K\)"):
        AdversarialAttribution(lambda x: case.model(x)[:, 2]).attribute(case.inputs, objective="multi_label")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_walks_in_single(dtype: torch.dtype) -> None:
    inputs, labels = build_batch(0, 8, dtype=torch.float32)
    model = build_convolutional(1, dtype=torch.float32)
    expected, delta = AdversarialAttribution(model).attribute(inputs, labels, return_convergence_delta=True)
    lower = build_convolutional(1, dtype=torch.float32).to(dtype)
    change, reached = AdversarialAttribution(lower).attribute(inputs.to(dtype), labels, return_convergence_delta=True)
    assert change.dtype == dtype
    assert reached.dtype == torch.float32
    torch.testing.assert_close(reached, delta, rtol=0, atol=0.005)
    cosine = nn.functional.cosine_similarity(change.float().flatten(1), expected.flatten(1))
    assert (cosine > 0.99).all()


def test_where_the_gradient_breaks_the_others_go_on() -> None:
    inputs = torch.tensor([[1.0, 1.0], [5.0, 1.0], [1.0, 2.0]], dtype=torch.float64)

    def cliff(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 5.05, math.nan, 1.0) * x.sum(1)

    with pytest.warns(CaptumLipschitzWarning, match="for 1 of 3 examples the gradient became NaN"):
        change = AdversarialAttribution(cliff).attribute(inputs, rho=0.5)
    alone = AdversarialAttribution(cliff).attribute(inputs[[0, 2]], rho=0.5)
    assert torch.equal(change[[0, 2]], alone)
    assert torch.isfinite(change).all()
    assert 0.05 < float(change[1, 0]) < 0.5


def test_an_explanation_of_nothing_says_so() -> None:
    inputs = torch.tensor([[1.0, -1.0], [-1.0, -1.0]], dtype=torch.float64)
    with pytest.warns(CaptumLipschitzWarning, match="for 1 of 2 examples nothing moved") as warned:
        change = AdversarialAttribution(lambda x: x.relu().sum(1)).attribute(inputs, rho=0.5)
    assert change[0].any()
    assert not change[1].any()
    assert Path(warned[0].filename) == Path(__file__)


def test_outputs_that_are_no_tensor_name_the_way_out() -> None:
    inputs, labels = build_batch(0, 3)
    model = build_convolutional(0)
    wrapped = [
        (lambda x: SimpleNamespace(logits=model(x)), r"model\(\*inputs\).logits"),
        (lambda x: (model(x), x), r"model\(\*inputs\)\[0\]"),
        (lambda x: OrderedDict(out=model(x)), "got OrderedDict"),
    ]
    for forward, message in wrapped:
        for target in (labels, None):
            with pytest.raises(ModelOutputError, match=message):
                AdversarialAttribution(forward).attribute(inputs, target)


def test_outputs_must_keep_their_shape() -> None:
    inputs, labels = build_batch(0, 3)
    model, calls = build_convolutional(0), []

    def growing(x: Tensor) -> Tensor:
        calls.append(1)
        return torch.cat([model(x)] * len(calls), 1)

    with pytest.raises(ModelOutputError, match=r"same shape at every step, \(3, 4\), got \(3, 8\)"):
        AdversarialAttribution(growing).attribute(inputs, labels)


@pytest.mark.parametrize(
    ("rho", "message"),
    [
        ((0.1, 0.1, 0.1), "rho: expected a size for each of 2 inputs"),
        ((0.0, 0.0), "rho: expected a positive size for some input"),
        ((0.1, -0.1), "rho: expected a positive size for some input"),
        (math.inf, "rho: expected a positive size, got inf"),
    ],
)
def test_budgets_are_checked(rho: object, message: str) -> None:
    inputs, labels = build_batch(0, 3)
    method = AdversarialAttribution(lambda x, y: build_convolutional(0)(x + y))
    with pytest.raises(InvalidInputError, match=message):
        method.attribute((inputs, inputs), labels, rho=rho)


def test_attributions_of_other_shapes_have_no_log_odds_change() -> None:
    inputs, labels = build_batch(0, 3)
    method = AdversarialAttribution(build_convolutional(0))
    with pytest.raises(InvalidInputError, match="attributions: expected the shapes of what they change"):
        method.compute_log_odds_change(inputs[:, :1], inputs, labels)


@pytest.mark.parametrize("classes", [[], 1, [0.5], [True], torch.tensor(1), torch.zeros(2, 2).long(), [[1], [2, 3]]])
def test_classes_that_are_none(classes: Any) -> None:
    inputs, _ = build_batch(0, 3)
    with pytest.raises(InvalidInputError, match="classes: expected some integers"):
        AdversarialAttribution(build_convolutional(0)).attribute_classes(inputs, classes)


def test_a_norm_object_carries_its_scale() -> None:
    inputs, labels = build_batch(0, 3)
    method = AdversarialAttribution(build_convolutional(0))
    scale = torch.linspace(1, 2, 5)
    change = method.attribute(inputs, labels, norm=Linf(scale), n_steps=5)
    assert torch.equal(change, method.attribute(inputs, labels, norm="linf", scale=scale, n_steps=5))


class Lp(L2):
    """A norm of one's own, with a setting of its own."""

    def __init__(self, power: float) -> None:
        super().__init__()
        self.power = power

    def _size(self, flat: Tensor) -> Tensor:
        return flat.abs().pow(self.power).sum(1).pow(1 / self.power)


def test_a_norm_of_ones_own_keeps_its_settings() -> None:
    inputs, labels = build_batch(0, 3)
    change, delta = AdversarialAttribution(build_convolutional(0)).attribute(
        inputs, labels, norm=Lp(1.0), rho=2.0, return_convergence_delta=True
    )
    torch.testing.assert_close(change.flatten(1).abs().sum(1), delta + 2.0)
    assert (delta.abs() < 0.5).all()


def test_slopes_that_are_masked_may_be_infinite() -> None:
    inputs = torch.tensor([[0.0, 1.0, 1.0], [1.0, 1.0, 1.0]])
    change = AdversarialAttribution(lambda x: x.sqrt().sum(1)).attribute(inputs, mask=torch.tensor([0, 1, 1]))
    assert torch.equal(change[0], change[1])
    assert change.any()


@pytest.mark.parametrize("target", [-1, (-1,), np.int64(3), [(-1,)] * 3, (slice(3, 4),)])
def test_further_forms_of_target(target: object) -> None:
    inputs, _ = build_batch(0, 3)
    method = AdversarialAttribution(build_convolutional(0))
    if isinstance(target, np.integer):  # Captum refuses these; so do we, by name
        with pytest.raises(InvalidInputError, match=r"target: .*does not fit"):
            method.attribute(inputs, target)
        return
    assert torch.equal(method.attribute(inputs, target, n_steps=5), method.attribute(inputs, 3, n_steps=5))


@pytest.mark.parametrize("target", ["cat", 2.5, (), {}, [1, 2, 9], torch.tensor([0, 1, 9]), -5])
def test_targets_that_are_none_are_named(target: object) -> None:
    inputs, _ = build_batch(0, 3)
    with pytest.raises((InvalidInputError, InvalidTypeError), match=r"^target: "):
        AdversarialAttribution(build_convolutional(0)).attribute(inputs, target)


def test_limits_may_be_open_on_one_side_or_leave_no_room() -> None:
    inputs, labels = build_batch(0, 3)
    method = AdversarialAttribution(build_convolutional(0))
    above = method.attribute(inputs, labels, bounds=(0, None), rho=0.5)
    assert (inputs + above).min() >= -1e-12
    assert (inputs + above).max() > 1
    fixed = method.attribute(inputs, labels, bounds=(inputs, torch.where(inputs > 0.5, inputs, 1.0)))
    assert not fixed[inputs > 0.5].any()
    assert fixed.any()


def test_what_the_model_does_to_its_inputs_is_not_done_to_ours() -> None:
    inputs, labels = build_batch(0, 3)
    inner = build_convolutional(0)
    model = nn.Sequential(nn.ReLU(inplace=True), inner)
    shifted, delta = inputs - 0.5, torch.full_like(inputs, 0.3)
    kept = shifted.clone()
    found = AdversarialAttribution(model).compute_log_odds_change(delta, shifted, labels)
    assert torch.equal(shifted, kept)
    expected = log_odds(inner((kept + delta).relu()), labels) - log_odds(inner(kept.relu()), labels)
    torch.testing.assert_close(found, expected.detach())
