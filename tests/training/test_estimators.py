"""Estimators of the expected penalty against enumeration of all draws."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor

from captum_lipschitz import LipschitzRegularizer, expected_penalty, lipschitz_penalty
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.training import PenaltyDraws, draw, mean_penalty


def _enumerated(labels: Tensor, zeta: float, power: float, *, multi_label: bool = False) -> Tensor:
    """Each image alone, each class and the tandem draw in turn, weighed by their probabilities."""
    inputs, _ = build_batch(0, len(labels))
    model = build_convolutional(1)
    total = torch.zeros((), dtype=torch.float64)
    for i, c, tandem in itertools.product(range(len(labels)), range(4), (False, True)):
        leaf = inputs[i : i + 1].clone().requires_grad_()
        draws = PenaltyDraws(torch.tensor([c]), torch.tensor([tandem]))
        one = lipschitz_penalty(model(leaf), leaf, labels[i : i + 1], draws=draws, power=power, multi_label=multi_label)
        total = total + (zeta if tandem else 1 - zeta) * one / 4
    return total / len(labels)


@pytest.mark.parametrize("zeta", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("power", [1, 2, 3])
def test_the_expectation_is_that_of_all_draws(zeta: float, power: float) -> None:
    inputs, labels = build_batch(0, 3)
    inputs.requires_grad_()
    exact = expected_penalty(build_convolutional(1)(inputs), inputs, labels, tandem_probability=zeta, power=power)
    torch.testing.assert_close(exact, _enumerated(labels, zeta, power), rtol=1e-10, atol=1e-14)


def test_of_several_labels_too_where_some_lead_nothing() -> None:
    labels = torch.tensor([[1, 0, -1, 0], [0, 0, 0, 0], [1, 1, 0, 1]])
    inputs, _ = build_batch(0, 3)
    inputs.requires_grad_()
    exact = expected_penalty(build_convolutional(1)(inputs), inputs, labels, tandem_probability=0.3, multi_label=True)
    torch.testing.assert_close(exact, _enumerated(labels, 0.3, 2, multi_label=True), rtol=1e-10, atol=1e-14)


@given(seeds, st.integers(1, 4))
def test_several_draws_are_averaged(seed: int, count: int) -> None:
    inputs, labels = build_batch(seed, 5)
    inputs.requires_grad_()
    logits = build_convolutional(seed)(inputs)
    generator = torch.Generator().manual_seed(seed)
    draws = [draw(5, 4, tandem_probability=0.5, generator=generator) for _ in range(count)]
    each = [lipschitz_penalty(logits, inputs, labels, draws=one) for one in draws]
    torch.testing.assert_close(mean_penalty(logits, inputs, labels, draws=draws), sum(each) / count)
    regularizer = LipschitzRegularizer(
        strength=1.0,
        tandem_probability=0.5,
        draws_per_image=count,
        generator=torch.Generator().manual_seed(seed),
    )
    torch.testing.assert_close(regularizer.penalty(logits, inputs, labels), sum(each) / count)


def test_more_draws_vary_less_around_the_expectation() -> None:
    inputs, labels = build_batch(0, 4)
    inputs.requires_grad_()
    logits = build_convolutional(1)(inputs)
    exact = LipschitzRegularizer(strength=1.0, draws_per_image="all").penalty(logits, inputs, labels).item()
    spread = {}
    for count in (1, 4):
        regularizer = LipschitzRegularizer(
            strength=1.0, draws_per_image=count, generator=torch.Generator().manual_seed(0)
        )
        seen = torch.stack([regularizer.penalty(logits, inputs, labels).detach() for _ in range(200)])
        assert abs(seen.mean() - exact) < 4 * seen.std() / 200**0.5
        spread[count] = seen.var().item()
    assert 2.5 < spread[1] / spread[4] < 6.5


def test_what_cannot_be_used_is_refused() -> None:
    inputs, labels = build_batch(0, 4)
    inputs.requires_grad_()
    logits = build_convolutional(1)(inputs)
    with pytest.raises(InvalidInputError, match="draws: expected at least one, got none"):
        mean_penalty(logits, inputs, labels, draws=[])
    with pytest.raises(InvalidInputError, match=r"tandem_probability: expected a value in \[0, 1\], got 2"):
        expected_penalty(logits, inputs, labels, tandem_probability=2)
    for wrong in (0, "every", 1.5):
        with pytest.raises(InvalidInputError, match="draws_per_image: expected at least 1 or 'all'"):
            LipschitzRegularizer(strength=1.0, draws_per_image=wrong)  # type: ignore[arg-type]
