"""Turning a trained ReLU network into a half-Huber one while training goes on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, TypeGuard

from torch import nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.nn import HalfHuberReLU, replace_activations


class HalfHuberSchedule:
    """Replaces a network's ReLUs by half-Huber ones that start as good as ReLUs and grow round over the first steps.

    At construction every ``nn.ReLU`` becomes a ``HalfHuberReLU`` of a tiny delta. That moves an activation by at most
    half of delta, so the network's outputs stay what they were, to rounding. Then ``step()``, after each step of the
    optimiser, moves delta, in ``levels`` equal jumps, until after ``steps`` steps it is ``final_delta``. A network
    whose activations are half-Huber already sets out from their delta.

    Two more things belong to fine-tuning, and are not done here:

    - *The penalty* sets in gradually too. A plainly trained network has input gradients so large that the strength it
      ends with would destroy it at once: on the paper's ``standard`` network the penalty is worth 0.6 at first and
      a thousandth of that later. ``AdaptiveStrength`` with a small ``initial``, a large ``gain`` and a ``fall`` like
      its ``rise`` multiplies its way up as fast as a target loss allows; ``LinearRamp`` and ``CosineRamp`` fit where
      the strength to arrive at is known and small enough to set out from 0.
    - *BatchNorm's running averages* trail behind a delta that moves. Before the network is measured, after the last
      jump, ``recalibrate_batch_norm`` (in ``training.recalibration``) estimates them anew.

    Delta is a number, not a tensor, so ``torch.compile`` compiles once for each of its ``levels + 1`` values, in
    training and in evaluation mode each, and gives up, falling back to eager mode, after
    ``torch._dynamo.config.recompile_limit`` (8) graphs of one function. The default, 7 jumps, is what fits into these
    8 in training mode; for a network that is evaluated on the way ask for 3, or raise the limit. Make the
    schedule before compiling.

    Args:
        model: has ``nn.ReLU`` modules, or ``HalfHuberReLU`` ones that share one delta; changed in place.
        steps: optimiser steps until ``final_delta``, at least 1.
        final_delta: positive; the paper's is 0.5.
        levels: jumps, at least 1; more of them than ``steps`` are as many as ``steps``.
        initial_delta: what ReLUs become, positive. In float16, where the default underflows, take ``2**-12``.

    Raises:
        UnreachableActivationError: ReLU is called as a function, see ``replace_activations``; nothing was replaced.
        InvalidInputError, InvalidTypeError: no activation to work on, several different deltas, or settings that cannot
            be used; nothing was replaced.

    Warns:
        CaptumLipschitzWarning: as ``replace_activations`` does.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.ReLU())
        >>> schedule = HalfHuberSchedule(model, steps=4, levels=2)
        >>> for _ in range(4):  # after each optimizer.step()
        ...     schedule.step()
        ...     print(round(schedule.delta, 3))
        0.0
        0.25
        0.25
        0.5

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods ("half-Huber ReLU"); the schedule is this library's.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        steps: int,
        final_delta: float = 0.5,
        levels: int = 7,
        initial_delta: float = 2.0**-20,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        for name, count in (("steps", steps), ("levels", levels)):
            if isinstance(count, bool) or not isinstance(count, int):
                raise InvalidTypeError(f"{name}: expected a whole number, got {count!r}")
            if count < 1:
                raise InvalidInputError(f"{name}: expected at least 1, got {count}")
        for name, delta in (("final_delta", final_delta), ("initial_delta", initial_delta)):
            if not _is_delta(delta):
                raise InvalidInputError(f"{name}: expected a finite positive number, got {delta!r}")
        self.steps = steps
        self.final_delta = float(final_delta)
        self.levels = levels
        self._initial = _rounded_off(model, float(initial_delta))
        self._activations = [module for module in model.modules() if isinstance(module, HalfHuberReLU)]
        self._taken = 0

    def __repr__(self) -> str:
        return f"HalfHuberSchedule(delta={self.delta:.4g}, final_delta={self.final_delta:g}, steps={self.steps})"

    @property
    def delta(self) -> float:
        """Where the parabola of the network's activations ends now."""
        share = min(1.0, math.floor(self.levels * self._taken / self.steps) / self.levels)
        return self.final_delta if share == 1 else self._initial + share * (self.final_delta - self._initial)

    def step(self) -> None:
        """Count one step of the optimiser, and set the activations' delta for the next; none moves after ``steps``."""
        self._taken += 1
        self._apply()

    def state_dict(self) -> dict[str, Any]:
        """The steps taken and the delta set out from; the network's own state does not hold its delta."""
        return {"taken": self._taken, "initial_delta": self._initial}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer, the activations' delta included.

        Raises:
            InvalidInputError: the state is not a schedule's.
        """
        taken, initial = state.get("taken"), state.get("initial_delta")
        if isinstance(taken, bool) or not isinstance(taken, int) or taken < 0 or not _is_delta(initial):
            raise InvalidInputError(
                "state: expected {'taken': a whole number of at least 0, 'initial_delta': a positive number}, "
                f"got {dict(state)}"
            )
        self._taken, self._initial = taken, float(initial)
        self._apply()

    def _apply(self) -> None:
        delta = self.delta
        for activation in self._activations:
            activation.delta = delta


def _rounded_off(model: nn.Module, initial: float) -> float:
    """Make every ReLU a half-Huber one, and return the delta that all of them have now."""
    deltas = {module.delta for module in model.modules() if isinstance(module, HalfHuberReLU)}
    relus = any(type(module) is nn.ReLU for module in model.modules())
    if relus and deltas:
        raise InvalidInputError(
            f"model: expected either nn.ReLU or HalfHuberReLU throughout, got both (delta {sorted(deltas)})"
        )
    if len(deltas) > 1:
        raise InvalidInputError(f"model: expected HalfHuberReLUs of one delta, got {sorted(deltas)}")
    if deltas:
        return deltas.pop()
    if not relus:
        raise InvalidInputError(f"model: expected nn.ReLU modules, {type(model).__name__} has none")
    replace_activations(model, partial(HalfHuberReLU, initial))
    return initial


def _is_delta(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value) and value > 0
