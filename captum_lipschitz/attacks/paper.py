"""The paper's attack: linearly shrinking steps of unit direction, one loop for attacks and for explanations."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral
from typing import Literal, Protocol

import torch
from torch import Tensor

from captum_lipschitz.attacks.base import Attack, Found
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, rowwise
from captum_lipschitz.objectives import as_objective

Look = Callable[[Tensor], tuple[Tensor, Tensor]]
"""At a perturbation (N, ...): the direction to climb, (N, ...), and which rows, (N,), or values turn back to zero."""


class Directions(Protocol):
    """What the walk asks of a norm: both at size 1."""

    def steepest(self, gradient: Tensor) -> Tensor: ...

    def normalised(self, delta: Tensor) -> Tensor: ...


def shrinking_steps(
    look: Look,
    start: Tensor,
    *,
    norm: Directions,
    n_steps: int,
    path_length: float,
    momentum: float = 0.0,
    clamp: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Walk from ``start`` in steps of size ``2 * path_length * (n - k) / (n * (n + 1))``, k = 0 ... n - 1.

    Each step follows the steepest direction of what ``look`` returns, or heads back toward zero where it says so, both
    at size 1. With momentum the running mean ``m <- momentum * m + (1 - momentum) * direction`` is followed.

    Args:
        look: what to follow at a perturbation, see ``Look``. It may remember what it saw.
        start: perturbations, (N, ...).
        norm: measures steps and directions.
        n_steps: number of steps, at least 1.
        path_length: the sum of all step sizes, in the norm's units.
        momentum: in [0, 1).
        clamp: applied to the perturbations after each step (bounds).

    Returns:
        The last perturbations, (N, ...).

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods; the step sizes are those of the authors' code.
    """
    delta, velocity = start, torch.zeros_like(start) if momentum else None
    del start  # as much memory as the images, which is wanted for the model
    for k in range(n_steps):
        gradient, back = look(delta)
        back = rowwise(back, delta) if back.dim() == 1 else back
        direction = torch.where(back, -norm.normalised(delta), norm.steepest(gradient))
        if velocity is not None:
            direction = velocity = momentum * velocity + (1 - momentum) * direction
        delta = delta + 2 * path_length * (n_steps - k) / (n_steps * (n_steps + 1)) * direction
        del gradient, direction
        if clamp is not None:
            delta = clamp(delta)
    return delta


class PaperAttack(Attack):
    """The published attack, kept as the reference that other attacks are measured against.

    ``mode="minimal"`` ("L2,min"): away from the label while the criterion is not met, back toward the image once it
    is; the smallest perturbation that met it is the answer. ``mode="fixed"``: away from the label while the
    perturbation is smaller than ``rho``; found where the last perturbation meets the criterion.

    Args:
        mode: ``"minimal"`` or ``"fixed"``.
        steps: gradient steps, at least 1.
        rho: the path's length over ``overshoot``, in the norm's units; in fixed mode the size of the attack.
        overshoot: the path's length is ``overshoot * rho``.
        momentum: of the direction, in [0, 1).
        objective: ``"log_odds"`` (the same direction as cross entropy, without its float32 saturation) or
            ``"cross_entropy"`` (as published).
        norm: see ``Attack``.
        bounds: see ``Attack``.

    Raises:
        InvalidInputError: a setting that cannot be used.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = PaperAttack(rho=2.0)(model, torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.5)

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods ("L2,min").
    """

    def __init__(
        self,
        *,
        mode: Literal["minimal", "fixed"] = "minimal",
        steps: int = 450,
        rho: float = 20.0,
        overshoot: float = 1.0,
        momentum: float = 0.9,
        objective: Literal["log_odds", "cross_entropy"] = "log_odds",
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if mode not in ("minimal", "fixed"):
            raise InvalidInputError(f"mode: expected 'minimal' or 'fixed', got {mode!r}")
        check_path(n_steps=steps, rho=rho, overshoot=overshoot, momentum=momentum)
        self.mode = mode
        self.steps = steps
        self.rho = rho
        self.overshoot = overshoot
        self.momentum = momentum
        self.objective = as_objective(objective)

    def search(self, problem: Problem) -> Found:
        return self._minimal(problem) if self.mode == "minimal" else self._fixed(problem)

    def _minimal(self, problem: Problem) -> Found:
        best = torch.zeros_like(problem.inputs)
        best_size = torch.full((len(problem),), torch.inf, dtype=best.dtype, device=best.device)

        def remember(delta: Tensor, met: Tensor) -> None:
            size = self.norm.size(delta)
            better = met & (size < best_size)
            best[better], best_size[better] = delta[better], size[better]

        def look(delta: Tensor) -> tuple[Tensor, Tensor]:
            value, _, gradient = problem.evaluate(delta, self.objective)
            remember(delta, value <= 0)
            return -gradient, value <= 0

        last = self._walk(look, problem)
        remember(last, problem.value(last) <= 0)
        return Found(best, best_size < torch.inf, self._spent(problem))

    def _fixed(self, problem: Problem) -> Found:
        def look(delta: Tensor) -> tuple[Tensor, Tensor]:
            _, _, gradient = problem.evaluate(delta, self.objective)
            return -gradient, self.norm.size(delta) >= self.rho

        last = self._walk(look, problem)
        return Found(last, problem.value(last) <= 0, self._spent(problem))

    def _walk(self, look: Look, problem: Problem) -> Tensor:
        return shrinking_steps(
            look,
            torch.zeros_like(problem.inputs),
            norm=self.norm,
            n_steps=self.steps,
            path_length=self.overshoot * self.rho,
            momentum=self.momentum,
            clamp=lambda delta: problem.images(delta) - problem.inputs,
        )

    def _spent(self, problem: Problem) -> Tensor:
        return torch.full((len(problem),), self.steps, dtype=torch.int64, device=problem.inputs.device)


def check_path(*, n_steps: int, rho: float, overshoot: float, momentum: float) -> None:
    """Refuse settings of the walk that cannot be meant."""
    if not rho > 0:
        raise InvalidInputError(f"rho: expected a positive size, got {rho}")
    check_steps(n_steps=n_steps, overshoot=overshoot, momentum=momentum)


def check_steps(*, n_steps: int, overshoot: float, momentum: float) -> None:
    """The same without the size."""
    if not isinstance(n_steps, Integral) or n_steps < 1:
        raise InvalidInputError(f"n_steps: expected at least 1, a whole number, got {n_steps}")
    if not 0 < overshoot < math.inf:
        raise InvalidInputError(f"overshoot: expected a positive factor, got {overshoot}")
    if not 0 <= momentum < 1:
        raise InvalidInputError(f"momentum: expected a value in [0, 1), got {momentum}")
