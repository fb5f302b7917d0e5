"""Objectives and criteria against their definitions in words."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from strategies import seeds

from captum_lipschitz import BelowChance, Misclassified, Reaches
from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.objectives import as_objective, log_odds, logit, margin, negative_cross_entropy


def _logits(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(20, 5, generator=generator, dtype=torch.float64), torch.randint(
        5, (20,), generator=generator
    )


@given(seeds)
def test_misclassified_is_the_argmax(seed: int) -> None:
    logits, labels = _logits(seed)
    assert torch.equal(Misclassified().value(logits, labels) <= 0, logits.argmax(1) != labels)


def test_a_tie_is_decided_as_the_argmax_decides_it() -> None:
    logits = torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])
    assert (Misclassified().value(logits, torch.tensor([0, 1])) <= 0).tolist() == [False, True]


@given(seeds)
def test_below_chance_is_the_softmax_probability(seed: int) -> None:
    logits, labels = _logits(seed)
    assert torch.equal(BelowChance().value(logits, labels) <= 0, logit(logits.softmax(1), labels) <= 1 / 5)


@given(seeds)
def test_reaches_is_the_argmax_of_the_target(seed: int) -> None:
    logits, labels = _logits(seed)
    assert torch.equal(Reaches(2).value(logits, labels) <= 0, logits.argmax(1) == 2)
    rows = torch.tensor([3, 5])
    targets = torch.arange(20) % 5
    torch.testing.assert_close(
        Reaches(targets).rows(rows).value(logits[rows], labels[rows]), Reaches(targets).value(logits, labels)[rows]
    )


@given(seeds)
def test_objectives(seed: int) -> None:
    logits, labels = _logits(seed)
    p = logit(logits.softmax(1), labels)
    torch.testing.assert_close(log_odds(logits, labels), (p / (1 - p)).log())
    torch.testing.assert_close(
        negative_cross_entropy(logits, labels), -torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    )
    runner_up = torch.stack([row[torch.arange(5) != y].max() for row, y in zip(logits, labels, strict=True)])
    torch.testing.assert_close(margin(logits, labels), logit(logits, labels) - runner_up)


def test_log_odds_keep_their_gradient_where_cross_entropy_has_none() -> None:
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    label = torch.tensor([0])
    (saturated,) = torch.autograd.grad(negative_cross_entropy(logits, label).sum(), logits)
    (followed,) = torch.autograd.grad(log_odds(logits, label).sum(), logits)
    assert saturated.abs().max() == 0
    torch.testing.assert_close(followed, torch.tensor([[1.0, -0.5, -0.5]]))


def test_look_up_errors_list_the_choices() -> None:
    assert isinstance(as_criterion("below_chance"), BelowChance)
    with pytest.raises(InvalidInputError, match=r"\['below_chance', 'label_flips', 'misclassified'\]"):
        as_criterion("btr")
    with pytest.raises(InvalidInputError, match="'log_odds'"):
        as_objective("entropy")
    with pytest.raises(InvalidTypeError, match="objective: expected a function"):
        as_objective(3)  # type: ignore[arg-type]


def test_reaches_refuses_targets_that_cannot_be() -> None:
    with pytest.raises(InvalidTypeError, match="target"):
        Reaches(torch.tensor([0.5]))
    with pytest.raises(InvalidInputError, match=r"0\.\.4"):
        Reaches(5).validate(20, 5)
    with pytest.raises(InvalidInputError, match="each of 20 images, got 3"):
        Reaches(torch.tensor([0, 1, 2])).validate(20, 5)
