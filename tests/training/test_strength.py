"""The adaptive strength against the published recursion."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import strengths

from captum_lipschitz import AdaptiveStrength, CosineRamp, LinearRamp
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training import FixedStrength, StrengthController

losses = st.lists(st.floats(1e-6, 50), min_size=1, max_size=60)


@given(losses, st.floats(0.05, 3))
def test_follows_the_published_recursion(seen: list[float], target: float) -> None:
    settings = {"initial": 220.0, "gain": 0.02, "rise": 1.0, "fall": 0.01}
    controller = AdaptiveStrength(target_loss=target, **settings)
    found = [controller.update(torch.tensor(loss, dtype=torch.float64)).item() for loss in seen]
    assert found == pytest.approx(strengths(seen, target=target, **settings), rel=1e-12)
    assert controller.strength == pytest.approx(found[-1], rel=1e-12)


@given(losses, losses)
def test_saved_and_loaded_it_continues_identically(before: list[float], after: list[float]) -> None:
    controller = AdaptiveStrength(target_loss=0.5)
    for loss in before:
        controller.update(torch.tensor(loss))
    other = AdaptiveStrength(target_loss=0.5)
    other.load_state_dict(controller.state_dict())
    assert [controller.update(torch.tensor(x)).item() for x in after] == [
        other.update(torch.tensor(x)).item() for x in after
    ]


def test_extreme_losses() -> None:
    controller = AdaptiveStrength(target_loss=1.0)
    controller.update(torch.tensor(0.0))  # a perfect fit: I rises by the most allowed
    assert controller.integral == 1.0
    controller.update(torch.tensor(math.inf))
    assert controller.integral == pytest.approx(0.99)
    for unusable in (math.nan, -1.0):
        controller.update(torch.tensor(unusable))
        assert controller.integral == pytest.approx(0.99)


@pytest.mark.parametrize("name", ["target_loss", "initial", "gain", "rise", "fall"])
def test_settings_are_checked(name: str) -> None:
    with pytest.raises(InvalidInputError, match=f"{name}: expected a finite positive number, got -1"):
        AdaptiveStrength(**{"target_loss": 1.0, name: -1.0})  # type: ignore[arg-type]


def test_state_of_something_else_is_refused() -> None:
    for state in ({}, {"integral": "1"}, {"integral": math.nan}, {"integral": -1.0}):
        with pytest.raises(InvalidInputError, match="state: expected"):
            AdaptiveStrength(target_loss=1.0).load_state_dict(state)


def test_controllers_keep_the_protocol() -> None:
    for controller in (AdaptiveStrength(target_loss=1.0), FixedStrength(3.0), LinearRamp(final=1.0, steps=2)):
        assert isinstance(controller, StrengthController)
    assert FixedStrength(3.0).update(torch.tensor(9.0)).item() == 3.0
    with pytest.raises(InvalidInputError, match="strength"):
        FixedStrength(-1)


@given(st.floats(0, 100), st.floats(0, 100), st.integers(1, 30), st.integers(0, 40))
def test_ramps_go_from_one_strength_to_the_other(initial: float, final: float, steps: int, seen: int) -> None:
    linear, cosine = (kind(final=final, steps=steps, initial=initial) for kind in (LinearRamp, CosineRamp))
    for step in range(seen + 1):
        share = min(step, steps) / steps
        curved = math.sin(share * math.pi / 2) ** 2
        for ramp, risen in ((linear, share), (cosine, curved)):
            ahead = ramp.upcoming(torch.device("cpu"))
            found = ramp.update(torch.tensor(math.nan))  # what the loss is does not matter
            assert torch.equal(ahead, found)
            assert found.item() == pytest.approx(initial + risen * (final - initial), rel=1e-6, abs=1e-5)
            assert ramp.strength == pytest.approx(found.item(), rel=1e-6)
    again = CosineRamp(final=final, steps=steps, initial=initial)
    again.load_state_dict(cosine.state_dict())
    assert torch.equal(again.update(torch.tensor(0.0)), cosine.update(torch.tensor(0.0)))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"final": -1.0, "steps": 3}, InvalidInputError, "final: expected a finite number of at least 0"),
        ({"final": 1.0, "steps": 3, "initial": math.inf}, InvalidInputError, "initial: expected a finite number"),
        ({"final": 1.0, "steps": 0}, InvalidInputError, "steps: expected at least 1, got 0"),
        ({"final": 1.0, "steps": 2.5}, InvalidTypeError, "steps: expected a whole number of optimiser steps"),
    ],
)
def test_settings_of_ramps_are_checked(settings: dict[str, float], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        LinearRamp(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("state", [{}, {"taken": -1}, {"taken": 1.5}, {"taken": True}])
def test_state_of_something_else_is_refused_by_ramps(state: dict[str, object]) -> None:
    with pytest.raises(InvalidInputError, match="state: expected"):
        LinearRamp(final=1.0, steps=2).load_state_dict(state)


def test_nothing_waits_for_the_device() -> None:
    """On the meta device there is nothing to wait for: reading a value raises."""
    loss = torch.ones((), device="meta")
    with pytest.raises(RuntimeError):
        loss.item()
    for controller in (AdaptiveStrength(target_loss=1.0), FixedStrength(3.0), LinearRamp(final=1.0, steps=2)):
        assert controller.upcoming(loss.device).device.type == "meta"
        for _ in range(2):
            assert controller.update(loss).device.type == "meta"


def test_the_defaults_are_the_papers_settings_for_cifar10() -> None:
    controller = AdaptiveStrength(target_loss=1.5)
    settings = (controller.initial, controller.gain, controller.rise, controller.fall)
    assert settings == (220.0, 0.02, 1.0, 0.01)
    assert controller.integral == 0.0
    assert controller.strength == controller.upcoming(torch.device("cpu")).item() == 220.0


def test_what_is_upcoming_is_what_the_last_update_left() -> None:
    controller = AdaptiveStrength(target_loss=1.0, initial=3.0, gain=0.5, rise=2.0, fall=1.0)
    for loss, integral in ((0.5, math.log(2)), (1e-9, math.log(2) + 2), (math.e, math.log(2) + 1), (1e9, math.log(2))):
        found = controller.update(torch.tensor(loss, dtype=torch.float64, requires_grad=True))
        assert not found.requires_grad
        assert found.item() == pytest.approx(3 * math.exp(0.5 * integral))
        assert controller.upcoming(torch.device("cpu")).item() == found.item()
        assert controller.integral == pytest.approx(integral)
        assert controller.state_dict() == {"integral": controller.integral}
    controller.update(torch.tensor(1e9))
    assert controller.integral == 0.0  # never below


def test_the_state_is_kept_in_double_precision() -> None:
    controller = AdaptiveStrength(target_loss=1.0, fall=1e-9)
    controller.load_state_dict({"integral": 1000.0})
    assert controller.update(torch.tensor(2.0)).dtype == torch.float64  # a change that float32 would lose
    assert controller.integral == pytest.approx(1000 - 1e-9, abs=1e-12)


@pytest.mark.parametrize("name", ["target_loss", "initial", "gain", "rise", "fall"])
@pytest.mark.parametrize("value", [0.0, math.inf, math.nan])
def test_settings_are_positive_and_finite(name: str, value: float) -> None:
    with pytest.raises(InvalidInputError, match=f"{name}: expected a finite positive number, got {value}"):
        AdaptiveStrength(**{"target_loss": 1.0, name: value})


def test_the_smallest_states_that_can_be() -> None:
    controller = AdaptiveStrength(target_loss=1.0)
    controller.load_state_dict({"integral": 0.0})
    assert controller.strength == 220.0
    for unusable in (1, math.inf, None):
        with pytest.raises(InvalidInputError, match=r"state: expected {'integral': a number of at least 0}"):
            controller.load_state_dict({"integral": unusable})
    ramp = LinearRamp(final=1.0, steps=2)
    ramp.load_state_dict({"taken": 0})
    assert ramp.update(torch.tensor(0.0)).item() == 0.0
    assert ramp.state_dict() == {"taken": 1}


@pytest.mark.parametrize("value", [-0.5, math.inf, math.nan])
def test_fixed_strengths_and_ends_of_ramps_are_finite_and_at_least_zero(value: float) -> None:
    with pytest.raises(InvalidInputError, match="strength: expected a finite number of at least 0"):
        FixedStrength(value)
    for settings in ({"final": value}, {"final": 1.0, "initial": value}):
        with pytest.raises(InvalidInputError, match="expected a finite number of at least 0"):
            CosineRamp(steps=2, **settings)


def test_zero_is_a_strength() -> None:
    fixed = FixedStrength(0)
    assert fixed.strength == fixed.upcoming(torch.device("cpu")).item() == fixed.update(torch.tensor(1.0)).item() == 0.0
    assert isinstance(fixed.strength, float)
    assert fixed.state_dict() == {}
    fixed.load_state_dict({"anything": 1})
    falling = LinearRamp(final=0.0, initial=4.0, steps=1)
    assert falling.strength == 4.0  # of the first step, before there is one
    assert [falling.update(torch.tensor(1.0)).item() for _ in range(3)] == [4.0, 0.0, 0.0]
    assert falling.strength == 0.0
    assert (falling.initial, falling.final, falling.steps) == (4.0, 0.0, 1)
    with pytest.raises(InvalidTypeError, match="whole number"):
        LinearRamp(final=1.0, steps=True)


def test_strengths_of_settings_are_single_precision_on_the_losses_device() -> None:
    for controller in (FixedStrength(3.0), LinearRamp(final=1.0, steps=2)):
        strength = controller.update(torch.tensor(1.0, dtype=torch.float64))
        assert (strength.dtype, strength.shape) == (torch.float32, ())
