"""How strongly the penalty weighs: a fixed number, or a controller that watches the task loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError


@runtime_checkable
class StrengthController(Protocol):
    """Decides the penalty's strength of every optimiser step."""

    def update(self, task_loss: Tensor) -> Tensor:
        """Take one step's mean task loss, a scalar, and return that step's strength, a scalar."""

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint must hold to go on identically."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a checkpoint."""


class FixedStrength:
    """The same strength at every step; what a plain number given as ``strength`` becomes."""

    def __init__(self, strength: float) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise InvalidInputError(f"strength: expected a finite number of at least 0, got {strength}")
        self.strength = float(strength)

    def update(self, task_loss: Tensor) -> Tensor:
        """The fixed strength, on the loss's device."""
        return torch.tensor(self.strength, dtype=torch.float32, device=task_loss.device)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the strength is a setting."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Nothing to restore."""


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

    def update(self, task_loss: Tensor) -> Tensor:
        """Take one step's mean task loss, a scalar in nats, and return that step's strength, a scalar."""
        loss = torch.as_tensor(task_loss).detach()
        # Apple's GPUs have no float64.
        loss = loss.to(torch.float32 if loss.device.type == "mps" else torch.float64)
        integral = self._integral.to(loss)
        change = (-(loss / self.target_loss).log()).clamp(-self.fall, self.rise)
        integral = torch.where(change.isnan(), integral, (integral + change).clamp(min=0))
        self._integral = integral
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
