"""ContrastiveAdversarialAttribution: toward one class and away from another."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from strategies import Case, build_batch, build_convolutional, cases, linear_cases
from torch import nn

from captum_lipschitz import RMSE, ContrastiveAdversarialAttribution
from captum_lipschitz.errors import InvalidInputError, ModelOutputError


@given(linear_cases())
def test_on_a_linear_model_it_is_the_difference_of_two_classes_rows(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    others = (case.labels + 1) % case.model.out_features
    rows = case.model.weight.detach()
    expected = 0.1 * RMSE().steepest(rows[case.labels] - rows[others])
    change = ContrastiveAdversarialAttribution(case.model).attribute(
        case.inputs, case.labels, baseline_target=others, n_steps=500
    )
    # The direction never changes, so the walk ends between its size and one step of 1/250 less.
    torch.testing.assert_close(change, expected, rtol=0.02, atol=1e-6)


@given(cases(min_size=2))
def test_the_log_odds_between_the_two_classes_grow(case: Case) -> None:
    attribution = ContrastiveAdversarialAttribution(case.model)
    target, baseline = case.labels, (case.labels + 1) % 4
    change = attribution.attribute(case.inputs, target, baseline_target=baseline)

    def between(inputs: torch.Tensor) -> torch.Tensor:
        logits = case.model(inputs).detach()
        rows = torch.arange(len(inputs))
        return logits[rows, target] - logits[rows, baseline]

    moved = attribution.compute_log_odds_change(change, case.inputs, target, baseline_target=baseline)
    torch.testing.assert_close(moved, between(case.inputs + change) - between(case.inputs))
    assert (moved > 0).all()


@given(cases(min_size=3))
def test_without_a_baseline_it_is_the_likeliest_other_class(case: Case) -> None:
    attribution = ContrastiveAdversarialAttribution(case.model)
    logits = case.model(case.inputs).detach()
    logits[torch.arange(len(logits)), case.labels] = -torch.inf
    expected = attribution.attribute(case.inputs, case.labels, baseline_target=logits.argmax(1), n_steps=5)
    assert torch.equal(attribution.attribute(case.inputs, case.labels, n_steps=5), expected)
    parts = attribution.attribute(
        case.inputs, case.labels, baseline_target=logits.argmax(1), n_steps=5, internal_batch_size=2
    )
    torch.testing.assert_close(parts, expected, rtol=1e-6, atol=1e-9)


def test_what_cannot_be_contrasted_is_refused() -> None:
    inputs, labels = build_batch(0, 3)
    attribution = ContrastiveAdversarialAttribution(build_convolutional(0))
    with pytest.raises(InvalidInputError, match="baseline_target: expected another output than the target"):
        attribution.attribute(inputs, labels, baseline_target=labels)
    with pytest.raises(InvalidInputError, match="baseline_target: 4 does not fit"):
        attribution.attribute(inputs, labels, baseline_target=4)
    with pytest.raises(InvalidInputError, match=r"target: expected the output to explain.* 4 for each; got None"):
        attribution.attribute(inputs)
    with pytest.raises(ModelOutputError, match="expected floating logits of shape"):
        ContrastiveAdversarialAttribution(lambda x: x).attribute(inputs, (0, 1, 1))


def test_two_outputs_of_any_shape_are_contrasted() -> None:
    inputs, _ = build_batch(0, 3)
    method = ContrastiveAdversarialAttribution(lambda x: x[:, :, :2, :3] * torch.arange(1.0, 4.0))
    change = method.attribute(inputs, (1, 0, 2), baseline_target=[(0, 1, 1)] * 3, n_steps=400, norm="l2", rho=1.0)
    assert (change != 0).sum() == 6
    # Slopes of 3 and -2, so those are the changes' proportions.
    expected = torch.tensor([3.0, -2.0]).double() / 13**0.5
    found = torch.stack([change[:, 1, 0, 2], change[:, 0, 1, 1]], 1)
    torch.testing.assert_close(found, expected.expand(3, 2), rtol=0.03, atol=0)
