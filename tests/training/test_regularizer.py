"""LipschitzRegularizer: the sum, the schedule, the checkpoint."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, LinearRamp, LipschitzRegularizer, RegularizerOutput, lipschitz_penalty
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.training import PenaltyDraws, draw


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
        ({"strength": 1.0, "accumulation_steps": 0}, InvalidInputError, "accumulation_steps: expected at least 1 or"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LipschitzRegularizer(**setting)  # type: ignore[arg-type]


def test_the_task_loss_must_be_a_scalar() -> None:
    with pytest.raises(InvalidTypeError, match="task_loss: expected a scalar tensor"):
        LipschitzRegularizer(strength=1.0)(torch.zeros(2, 3), torch.zeros(2, 4), torch.zeros(2), task_loss=3.0)


def _one_of_two(rank: int, folder: str) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    controller = AdaptiveStrength(target_loss=1.0)
    regularizer = LipschitzRegularizer(strength=controller)
    inputs = torch.ones(2, 3, requires_grad=True)
    for _ in range(5):
        logits = inputs * 1.0
        regularizer(logits, inputs, torch.zeros(2, dtype=torch.long), task_loss=torch.tensor([0.2, 1.0][rank]))
    torch.save(controller.state_dict(), f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_all_processes_have_the_strength_of_the_mean_loss(tmp_path: Path) -> None:
    code = "import sys, test_regularizer as t; t._one_of_two(int(sys.argv[1]), sys.argv[2])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(rank), str(tmp_path)], env=environment) for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in both] == [0, 0]
    alone = AdaptiveStrength(target_loss=1.0)
    for _ in range(5):
        alone.update(torch.tensor(0.6))
    integrals = [torch.load(tmp_path / str(rank), weights_only=True)["integral"] for rank in (0, 1)]
    assert integrals[0] == integrals[1] == pytest.approx(alone.integral, rel=1e-6)


def test_a_strength_beyond_half_precision_stays_finite() -> None:
    inputs = torch.ones(2, 3, dtype=torch.float16, requires_grad=True)
    output = LipschitzRegularizer(strength=1e5, tandem_probability=0.0)(
        inputs * 0.01, inputs, torch.zeros(2, dtype=torch.long), task_loss=torch.ones((), dtype=torch.float16)
    )
    assert output.strength.item() == 1e5
    assert torch.isfinite(output.loss)


def _accumulated(regularizer: LipschitzRegularizer, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """The strengths that the micro-batches given had."""
    strengths = []
    for inputs, labels in batches:
        leaf = inputs.clone().requires_grad_()
        logits = build_convolutional(1)(leaf)
        output = regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))
        strengths.append(output.strength.item())
    return strengths


@pytest.mark.parametrize("told", [3, None])
def test_the_strength_is_held_through_an_optimiser_step(told: int | None) -> None:
    micro = [build_batch(seed, 4) for seed in range(9)]
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), accumulation_steps=told)
    alone, expected, found = AdaptiveStrength(target_loss=50.0), [], []
    for step in range(3):
        batches = micro[3 * step : 3 * step + 3]
        expected += [alone.strength] * 3
        found += _accumulated(regularizer, batches)
        with torch.no_grad():
            losses = [F.cross_entropy(build_convolutional(1)(inputs), labels) for inputs, labels in batches]
        alone.update(torch.stack(losses).mean())
        if told is None:
            regularizer.step()
        regularizer.step()  # nothing is left of the step: nothing happens
    assert found == pytest.approx(expected)
    assert len(set(found)) == 3
    assert regularizer.state_dict()["steps"] == 3
    assert regularizer.state_dict()["controller"]["integral"] == pytest.approx(alone.integral)


def test_a_step_of_fewer_micro_batches_is_ended_by_hand() -> None:
    regularizer = LipschitzRegularizer(strength=LinearRamp(final=4.0, steps=4), accumulation_steps=3)
    assert _accumulated(regularizer, [build_batch(0, 4)] * 2) == [0.0, 0.0]
    regularizer.step()
    assert _accumulated(regularizer, [build_batch(0, 4)] * 4) == [1.0, 1.0, 1.0, 2.0]
    assert regularizer.state_dict()["steps"] == 2


def test_a_forgotten_step_is_warned_of_once() -> None:
    regularizer = LipschitzRegularizer(strength=2.0, accumulation_steps=None)
    loss, penalty = torch.ones(()), torch.zeros(())
    for _ in range(999):
        regularizer.combine(penalty, task_loss=loss)
    with pytest.warns(CaptumLipschitzWarning, match=r"1000 micro-batches.*regularizer\.step\(\) after optimizer"):
        regularizer.combine(penalty, task_loss=loss)
    for _ in range(1001):
        regularizer.combine(penalty, task_loss=loss)
    regularizer.step()
    assert regularizer.state_dict()["steps"] == 1


def test_a_state_that_is_none_changes_nothing() -> None:
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0))
    _step(regularizer)
    good, other = regularizer.state_dict(), LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0))
    before = other.state_dict()
    for wrong in ({"generator": 3}, {"steps": "two"}, {"controller": {"integral": -1.0}}):
        with pytest.raises(InvalidInputError, match="state: expected"):
            other.load_state_dict({**good, **wrong})
        after = other.state_dict()
        assert after["controller"] == before["controller"]
        assert after["steps"] == 0
        assert torch.equal(after["generator"], before["generator"])


def test_skipped_steps_are_whole_optimiser_steps() -> None:
    regularizer = LipschitzRegularizer(strength=2.0, every=2, accumulation_steps=2)
    penalties = [bool(_step(regularizer)[0].penalty > 0) for _ in range(8)]
    assert penalties == [True, True, False, False, True, True, False, False]


def test_micro_batches_add_up_to_the_gradient_of_the_whole_batch() -> None:
    inputs, labels = build_batch(0, 12)
    draws = draw(12, 4, tandem_probability=0.2, generator=torch.Generator().manual_seed(8))
    whole, parts = build_convolutional(1), build_convolutional(1)  # evaluation mode: no batch statistics
    leaf = inputs.clone().requires_grad_()
    logits = whole(leaf)
    (F.cross_entropy(logits, labels) + 3 * lipschitz_penalty(logits, leaf, labels, draws=draws)).backward()
    for rows in torch.arange(12).split(4):
        leaf = inputs[rows].clone().requires_grad_()
        logits = parts(leaf)
        penalty = lipschitz_penalty(logits, leaf, labels[rows], draws=PenaltyDraws(*(part[rows] for part in draws)))
        ((F.cross_entropy(logits, labels[rows]) + 3 * penalty) / 3).backward()
    for a, b in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-10, atol=1e-12)


def test_a_checkpoint_forgets_an_unfinished_step() -> None:
    regularizer = LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), accumulation_steps=2)
    _accumulated(regularizer, [build_batch(0, 4)] * 3)
    saved = regularizer.state_dict()
    assert saved["steps"] == 1
    regularizer.load_state_dict(saved)
    _accumulated(regularizer, [build_batch(0, 4)])
    assert regularizer.state_dict()["steps"] == 1


@pytest.mark.parametrize("accumulation_steps", [1, 2])
def test_a_step_never_waits_for_the_device(accumulation_steps: int) -> None:
    """On the meta device there is nothing to wait for: reading a value raises."""
    model = torch.nn.Linear(6, 4, device="meta")
    regularizer = LipschitzRegularizer(
        strength=AdaptiveStrength(target_loss=50.0), accumulation_steps=accumulation_steps
    )
    for _ in range(4):
        inputs, labels = torch.rand(5, 6, device="meta", requires_grad=True), torch.zeros(5, device="meta").long()
        logits = model(inputs)
        output = regularizer(logits, inputs, labels, task_loss=F.cross_entropy(logits, labels))
        output.loss.backward()
        assert output.loss.device.type == "meta"
    assert model.weight.grad is not None


def test_soft_and_several_labels_are_taken() -> None:
    inputs, labels = build_batch(0, 6)
    inputs.requires_grad_()
    logits = build_convolutional(1)(inputs)
    plain, soft, several = (
        LipschitzRegularizer(strength=1.0, generator=torch.Generator().manual_seed(5), multi_label=multi_label)
        for multi_label in (False, False, True)
    )
    one_hot = F.one_hot(labels, 4)
    loss = torch.ones((), dtype=torch.float64)
    expected = plain(logits, inputs, labels, task_loss=loss).penalty
    assert expected > 0
    torch.testing.assert_close(soft(logits, inputs, 0.9 * one_hot + 0.025, task_loss=loss).penalty, expected)
    torch.testing.assert_close(several(logits, inputs, one_hot, task_loss=loss).penalty, expected)
