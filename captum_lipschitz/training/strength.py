"""How strongly the penalty weighs: a fixed number, a ramp, or a controller that watches the task loss."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


@runtime_checkable
class StrengthController(Protocol):
    """Decides the penalty's strength of every optimiser step."""

    def upcoming(self, device: torch.device) -> Tensor:
        """The next step's strength as far as it is known before that step's loss, a scalar on ``device``."""

    def update(self, task_loss: Tensor) -> Tensor:
        """Take one step's mean task loss, a scalar, and return that step's strength, a scalar."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on identically."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class FixedStrength:
    """The same strength at every step; what a plain number given as ``strength`` becomes.

    Args:
        strength: psi, at least 0.

    Raises:
        InvalidInputError: a strength that is negative or not finite.
    """

    def __init__(self, strength: float) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise InvalidInputError(f"strength: expected a finite number of at least 0, got {strength}")
        self.strength = float(strength)

    def __repr__(self) -> str:
        return f"FixedStrength({self.strength:g})"

    def upcoming(self, device: torch.device) -> Tensor:
        """The fixed strength, on ``device``."""
        return _scalar(self.strength, device)

    def update(self, task_loss: Tensor) -> Tensor:
        """The fixed strength, on the loss's device."""
        return self.upcoming(task_loss.device)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the strength is a setting."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


class _Ramp(ABC):
    """A strength that goes from one value to another in so many optimiser steps, and stays there."""

    def __init__(self, *, final: float, steps: int, initial: float = 0.0) -> None:
        for name, value in (("final", final), ("initial", initial)):
            if not (math.isfinite(value) and value >= 0):
                raise InvalidInputError(f"{name}: expected a finite number of at least 0, got {value}")
        if isinstance(steps, bool) or not isinstance(steps, int):
            raise InvalidTypeError(f"steps: expected a whole number of optimiser steps, got {steps!r}")
        if steps < 1:
            raise InvalidInputError(f"steps: expected at least 1, got {steps}")
        self.final = float(final)
        self.steps = steps
        self.initial = float(initial)
        self._taken = 0

    def __repr__(self) -> str:
        return f"{type(self).__name__}(initial={self.initial:g}, final={self.final:g}, steps={self.steps})"

    @property
    def strength(self) -> float:
        """The strength of the last step taken; before there is one, of the first."""
        return self._at(max(0, self._taken - 1))

    def upcoming(self, device: torch.device) -> Tensor:
        """The next step's strength, on ``device``."""
        return _scalar(self._at(self._taken), device)

    def update(self, task_loss: Tensor) -> Tensor:
        """Take a step and return its strength, on the loss's device; the loss itself does not matter."""
        strength = self.upcoming(task_loss.device)
        self._taken += 1
        return strength

    def state_dict(self) -> dict[str, Any]:
        """The steps taken, ``{"taken": n}``."""
        return {"taken": self._taken}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer.

        Raises:
            InvalidInputError: the state is not a ramp's.
        """
        taken = state.get("taken")
        if isinstance(taken, bool) or not isinstance(taken, int) or taken < 0:
            raise InvalidInputError(f"state: expected {{'taken': a whole number of at least 0}}, got {dict(state)}")
        self._taken = taken

    def _at(self, step: int) -> float:
        return self.initial + (self.final - self.initial) * self._risen(min(1.0, step / self.steps))

    @abstractmethod
    def _risen(self, share: float) -> float:
        """How much of the way is done, in [0, 1], after a ``share`` of the steps."""


class LinearRamp(_Ramp):
    """A strength that grows, or falls, by the same amount at every optimiser step: ``psi = initial + share * rest``.

    Args:
        final: the strength from step ``steps`` on, at least 0.
        steps: optimiser steps from the first one, which has ``initial``, to the first with ``final``; at least 1.
        initial: the strength of the first step, at least 0.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.

    Example:
        >>> ramp = LinearRamp(final=10.0, steps=4)
        >>> [float(ramp.update(torch.tensor(1.0))) for _ in range(6)]
        [0.0, 2.5, 5.0, 7.5, 10.0, 10.0]
    """

    def _risen(self, share: float) -> float:
        return share


class CosineRamp(_Ramp):
    """A strength that sets out and arrives gently: ``psi = initial + (1 - cos(pi * share)) / 2 * rest``.

    Args:
        final: the strength from step ``steps`` on, at least 0.
        steps: optimiser steps from the first one, which has ``initial``, to the first with ``final``; at least 1.
        initial: the strength of the first step, at least 0.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.

    Example:
        >>> ramp = CosineRamp(final=10.0, steps=2)
        >>> [round(float(ramp.update(torch.tensor(1.0))), 4) for _ in range(4)]
        [0.0, 5.0, 10.0, 10.0]
    """

    def _risen(self, share: float) -> float:
        return (1 - math.cos(math.pi * share)) / 2


class AdaptiveStrength:
    """Raises the strength while the network fits better than a target loss, and eases off slowly where it does not.

    An integral controller. At each step with mean task loss L, before the loss is formed:

        ``I <- max(0, I + clip(-ln(L / target_loss), -fall, +rise))``,  ``strength = initial * exp(gain * I)``.

    The target loss trades clean accuracy for robustness. The state stays on the loss's device (no synchronisation), in
    float64 where the device has it. A loss that is NaN or negative leaves the state as it was.

    Args:
        target_loss: cross entropy to hold, in nats, positive.
        initial: psi_0, the strength at I = 0, positive. It is in units of the penalty's mean over input features, so it
            grows with their number; too small a value only delays the controller.
        gain: k, positive.
        rise: largest increase of I in a step, positive.
        fall: largest decrease of I in a step, positive.

    Raises:
        InvalidInputError: a setting that is not positive, or not finite.

    Example:
        >>> strength = AdaptiveStrength(target_loss=1.5)
        >>> round(float(strength.update(torch.tensor(0.15))), 2)  # fits better than the target: I rises by 1
        224.44

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods; the defaults are its CIFAR-10 settings.
    """

    def __init__(
        self,
        *,
        target_loss: float,
        initial: float = 220.0,
        gain: float = 0.02,
        rise: float = 1.0,
        fall: float = 0.01,
    ) -> None:
        settings = {"target_loss": target_loss, "initial": initial, "gain": gain, "rise": rise, "fall": fall}
        for name, value in settings.items():
            if not (math.isfinite(value) and value > 0):
                raise InvalidInputError(f"{name}: expected a finite positive number, got {value}")
        self.target_loss = float(target_loss)
        self.initial = float(initial)
        self.gain = float(gain)
        self.rise = float(rise)
        self.fall = float(fall)
        self._integral = torch.zeros((), dtype=torch.float64)

    def __repr__(self) -> str:
        return f"AdaptiveStrength(target_loss={self.target_loss}, strength={self.strength:.4g})"

    @property
    def integral(self) -> float:
        """I, at least 0. Reading it waits for the device."""
        return float(self._integral)

    @property
    def strength(self) -> float:
        """psi, as of the last update. Reading it waits for the device."""
        return self.initial * math.exp(self.gain * self.integral)

    def upcoming(self, device: torch.device) -> Tensor:
        """The strength that the last update left, on ``device``; nothing waits for it."""
        return self._psi(self._integral.to(_precision(device)).to(device))

    def update(self, task_loss: Tensor) -> Tensor:
        """Take one step's mean task loss, a scalar in nats, and return that step's strength, a scalar."""
        loss = torch.as_tensor(task_loss).detach()
        loss = loss.to(_precision(loss.device))
        integral = self._integral.to(loss)
        change = (-(loss / self.target_loss).log()).clamp(-self.fall, self.rise)
        integral = torch.where(change.isnan(), integral, (integral + change).clamp(min=0))
        self._integral = integral
        return self._psi(integral)

    def _psi(self, integral: Tensor) -> Tensor:
        return self.initial * (self.gain * integral).exp()

    def state_dict(self) -> dict[str, Any]:
        """The controller's state, ``{"integral": I}``."""
        return {"integral": self.integral}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer, to the bit.

        Raises:
            InvalidInputError: the state is not this controller's.
        """
        integral = state.get("integral")
        if not isinstance(integral, float) or not (math.isfinite(integral) and integral >= 0):
            raise InvalidInputError(f"state: expected {{'integral': a number of at least 0}}, got {dict(state)}")
        self._integral = torch.tensor(integral, dtype=torch.float64)


def _scalar(value: float, device: torch.device) -> Tensor:
    """A number on a device; filled in there, where copying it over would wait for the device."""
    return torch.full((), value, dtype=torch.float32, device=device)


def _precision(device: torch.device) -> torch.dtype:
    return torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no float64
