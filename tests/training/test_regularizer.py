"""LipschitzRegularizer: the sum, the schedule, the checkpoint."""

from __future__ import annotations

import itertools

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer, RegularizerOutput, lipschitz_penalty
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training import draw


def _step(regularizer: LipschitzRegularizer, seed: int = 0) -> tuple[RegularizerOutput, torch.Tensor]:
    inputs, labels = build_batch(seed, 6)
    inputs.requires_grad_()
    logits = build_convolutional(1)(inputs)
    task_loss = F.cross_entropy(logits, labels)
    return regularizer(logits, inputs, labels, task_loss=task_loss), task_loss


def test_the_loss_is_the_task_loss_plus_strength_times_penalty() -> None:
    regularizer = LipschitzRegularizer(strength=3.0, generator=torch.Generator().manual_seed(5))
    output, task_loss = _step(regularizer)
    draws = draw(6, 4, tandem_probability=0.2, generator=torch.Generator().manual_seed(5))
    inputs, labels = build_batch(0, 6)
    inputs.requires_grad_()
    penalty = lipschitz_penalty(build_convolutional(1)(inputs), inputs, labels, draws=draws)
    torch.testing.assert_close(output.penalty, penalty)
    torch.testing.assert_close(output.loss, task_loss + 3 * penalty)
    assert output.strength.item() == 3.0


def test_every_third_step_has_three_times_the_strength() -> None:
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), every=3)
    outputs = [_step(regularizer) for _ in range(7)]
    assert [bool(output.penalty > 0) for output, _ in outputs] == [True, False, False, True, False, False, True]
    for output, task_loss in outputs:
        torch.testing.assert_close(output.loss, task_loss + 3 * output.strength * output.penalty)
    strengths = [output.strength.item() for output, _ in outputs]
    assert all(b > a for a, b in itertools.pairwise(strengths))  # skipped steps advance it too


def test_a_checkpoint_continues_identically() -> None:
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), every=2)
    for seed in range(5):
        _step(regularizer, seed)
    other = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), every=2)
    other.load_state_dict(regularizer.state_dict())
    for seed in range(5):
        (a, _), (b, _) = _step(regularizer, seed), _step(other, seed)
        assert torch.equal(a.loss, b.loss)
    with pytest.raises(InvalidInputError, match=r"missing \['generator', 'steps'\]"):
        other.load_state_dict({"controller": {}})


def test_a_refused_step_does_not_count() -> None:
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), every=2)
    before = regularizer.state_dict()
    inputs, labels = build_batch(0, 6)
    with pytest.raises(InvalidInputError):
        regularizer(build_convolutional(1)(inputs), inputs, labels, task_loss=torch.ones(()))
    after = regularizer.state_dict()
    assert before["controller"] == after["controller"]
    assert before["steps"] == after["steps"]
    assert torch.equal(before["generator"], after["generator"])


def test_the_global_random_state_is_left_alone() -> None:
    regularizer = LipschitzRegularizer(strength=1.0)
    before = torch.get_rng_state()
    _step(regularizer)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"strength": "high"}, InvalidTypeError, "strength: expected a number or a controller, got str"),
        ({"strength": True}, InvalidTypeError, "strength: expected a number or a controller, got bool"),
        ({"strength": 1.0, "power": 0}, InvalidInputError, "power: expected a positive exponent"),
        ({"strength": 1.0, "tandem_probability": 1.5}, InvalidInputError, "tandem_probability: expected"),
        ({"strength": 1.0, "every": 0}, InvalidInputError, "every: expected at least 1"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LipschitzRegularizer(**setting)  # type: ignore[arg-type]


def test_the_task_loss_must_be_a_scalar() -> None:
    with pytest.raises(InvalidTypeError, match="task_loss: expected a scalar tensor"):
        LipschitzRegularizer(strength=1.0)(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), task_loss=3.0)
