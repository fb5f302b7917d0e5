"""What the wrapped attacks share: adv-lib's box, its norms, and the way there and back."""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from captum_lipschitz._trace import seeded
from captum_lipschitz.attacks import Attack, Found, Problem
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import L2, Bounds, Linf, Norm
from captum_lipschitz_advlib.shown_model import ShownModel

UNIT_BOX = Bounds(0.0, 1.0)


class AdvLibAttack(Attack):
    """Base of the wrapped attacks, in the box [0, 1], as adv-lib clamps to it.

    Args:
        norm: ``"rmse"``, ``"l2"`` (the same search), and ``"linf"`` where the attack has it.
        bounds: ``(0, 1)``.

    Raises:
        InvalidInputError: for another box or none, a norm that the attack has not, or a norm with a scale.
    """

    norms: ClassVar[tuple[type[Norm], ...]] = (L2,)
    overshoot = 1.0

    def __init__(self, *, norm: Norm | str, bounds: Bounds | tuple[float, float] | None) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if self.bounds != UNIT_BOX:
            raise InvalidInputError(
                f"bounds: expected (0, 1), the box that adv-lib clamps to, got {bounds!r}; the attacks 'minimum_norm' "
                "and 'paper' take any box or none"
            )
        if not isinstance(self.norm, self.norms):
            choices = "'rmse', 'l2' or 'linf'" if Linf in self.norms else "'rmse' or 'l2'"
            raise InvalidInputError(f"norm: expected {choices}, got {self.norm.name!r}")
        if self.norm.scale is not None:
            raise InvalidInputError("norm: expected one without a scale, which adv-lib does not know")

    @property
    def order(self) -> float:
        """The norm as adv-lib names it: 2 or ``inf``."""
        return float("inf") if isinstance(self.norm, Linf) else 2

    @abstractmethod
    def run(self, model: ShownModel) -> Tensor:
        """adv-lib's adversarial images, shaped as ``model.images``; the clean image where it found none."""

    def search(self, problem: Problem) -> Found:
        model = ShownModel(problem, overshoot=self.overshoot)
        with seeded(0, problem.inputs.device):  # DDN draws a direction for an image without a gradient
            delta = model.perturbations(self.run(model)).nan_to_num(nan=0.0)
        claimed = (delta != 0).flatten(1).any(1)
        spent = torch.full((len(problem),), model.backward_passes, device=delta.device)
        return Found(delta, claimed, spent)


def at_least(name: str, value: int, least: int) -> int:
    """A whole number that is not below ``least``, or an exception that names it."""
    if value < least:
        raise InvalidInputError(f"{name}: expected at least {least}, got {value}")
    return value


def positive(name: str, value: float) -> float:
    """A number above 0, or an exception that names it."""
    if not value > 0:
        raise InvalidInputError(f"{name}: expected a positive number, got {value}")
    return value


def share(name: str, value: float) -> float:
    """A number in (0, 1), or an exception that names it."""
    if not 0 < value < 1:
        raise InvalidInputError(f"{name}: expected a share in (0, 1), got {value}")
    return value
