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
