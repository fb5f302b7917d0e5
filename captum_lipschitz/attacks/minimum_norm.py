"""The smallest perturbation that meets a criterion, by projection onto the linearised boundary with momentum."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from captum_lipschitz.attacks.base import Attack, Found, Problem
from captum_lipschitz.criteria import LabelFlips, Misclassified
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, row_dot, rowwise

_EFFORTS = {"fast": 20, "standard": 100, "thorough": 450}  # gradients an image may cost
_MOMENTUM = 0.5  # share of the previous move that is added before projecting
_DECAY = 20.0  # steps over which the pull to the origin and the overshoot fall by a factor e
_PULL = (0.5, 0.05)  # weight of the origin's own projection: at the start, at the end
_OVERSHOOT = 0.02  # how far behind the boundary to aim at first, relative to the perturbation
_OVERSHOOT_FACTORS = (
    0.7,
    1.5,
)  # what that is multiplied by after a step that met the criterion, after one that did not
_OVERSHOOT_RANGE = (1e-5, 1.0)
_PATIENCE, _GAIN = 8, 1e-3  # an image is done after so many steps without so large a relative gain
_REFINEMENTS = 12  # halvings, forward passes only, of the last stretch between image and answer
_REACH = 4.0  # the first move goes at most so many times the linearised distance (a box can ask for more than one)
_STRETCH = 0.02  # the length of that stretch relative to the answer


class MinimumNormAttack(Attack):
    """A fast minimal attack that converges to the decision boundary's nearest point around where it first meets it.

    With g the criterion's value and w its gradient at the perturbation d, H is the linearised boundary moved inside
    by ``tau * |d| * |w|``, and

        ``d <- (1 - a) * P(d + 0.5 * (d - d_previous)) + a * P(0)``,  P the projection onto H (within the bounds),

    with ``a`` falling from 0.5 as exp(-k / 20), and ``tau`` each image's own: smaller after a step that met the
    criterion, larger after one that did not. For ``misclassified``, the first move goes to the class whose boundary is
    nearest by the linearisation at the image, among the ``candidates`` classes with the largest logits (for
    ``label_flips``, labels with the logits nearest 0). The smallest
    perturbation that met the criterion is kept, and shortened at the end by bisection. An image leaves the batch after
    8 steps without a gain of 0.1%.

    The margin's gradient is the boundary's normal, where that of the cross entropy is not; this is why answers for
    ``misclassified`` are smaller than the paper's at a tenth of its gradients (``benchmarks/RESULTS.md`` has the
    figures, also for ``below_chance``). They are upper bounds still.

    Args:
        effort: how many gradients an image may cost: ``"fast"`` 20, ``"standard"`` 100, ``"thorough"`` 450.
        steps: projection steps, at least 1; ``None`` takes the effort's.
        candidates: classes compared for the first move, at least 1; each costs a backward pass.
        norm: see ``Attack``; with ``"linf"`` the projections are the smallest in that norm.
        bounds: see ``Attack``.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = MinimumNormAttack(norm="l2")(model, torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> round(float(result.distances), 4)
        0.7071

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (the criteria); Croce and Hein 2020, arXiv 1907.02044 (FAB) and
        Pintor et al. 2021, arXiv 2102.12827 (FMN) for the family of boundary projections.
    """

    def __init__(
        self,
        *,
        effort: Literal["fast", "standard", "thorough"] = "standard",
        steps: int | None = None,
        candidates: int = 10,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if effort not in _EFFORTS:
            raise InvalidInputError(f"effort: expected one of {sorted(_EFFORTS)}, got {effort!r}")
        steps = _EFFORTS[effort] if steps is None else steps
        if steps < 1:
            raise InvalidInputError(f"steps: expected at least 1, got {steps}")
        if candidates < 1:
            raise InvalidInputError(f"candidates: expected at least 1, got {candidates}")
        self.steps = steps
        self.candidates = candidates

    def search(self, problem: Problem) -> Found:
        start = torch.zeros_like(problem.inputs)
        spent = torch.zeros(len(problem), dtype=torch.int64, device=start.device)
        if isinstance(problem.criterion, (Misclassified, LabelFlips)) and self.candidates > 1:
            start, backward_passes = self._toward_nearest_alternative(problem)
            spent += backward_passes
        best = _Best(problem, self.norm)
        self._project(problem, start, best, spent)
        return Found(self._shortened(problem, best), best.size < torch.inf, spent)

    def _project(self, problem: Problem, start: Tensor, best: _Best, spent: Tensor) -> None:
        """The projection steps. Images that are done are dropped from the state, and the model runs on fewer."""
        part, state = problem, _State(problem, start)
        for k in range(self.steps):
            value, normal = part.evaluate(state.delta)
            met = value <= 0
            spent[state.rows] += 1
            best.update(state.rows, state.delta, met, k)
            less, more = (state.overshoot * factor for factor in _OVERSHOOT_FACTORS)
            state.overshoot = torch.where(met, less, more).clamp(*_OVERSHOOT_RANGE)
            state.previous, state.delta = state.delta, self._step(part, state, value, normal, k)
            going = k - best.improved_at[state.rows] < _PATIENCE
            if not bool(going.all()):
                state.keep(going)
                if not len(state.rows):
                    return
                part = problem.rows(state.rows)
        best.update(state.rows, state.delta, part.value(state.delta) <= 0, self.steps)

    def _step(self, problem: Problem, state: _State, value: Tensor, normal: Tensor, k: int) -> Tensor:
        delta, box = state.delta, problem.box()
        size = self.norm.size(delta)
        slope = row_dot(normal, self.norm.steepest(normal))
        offset = row_dot(normal, delta) - value - state.overshoot * size * slope
        limit = size.clamp(min=self.norm.unit_in_l2(delta))
        pull = max(_PULL[1], _PULL[0] * math.exp(-k / _DECAY))
        ahead = delta + _MOMENTUM * (delta - state.previous)
        onward = self.norm.to_hyperplane(ahead, normal, offset, limit=limit, box=box)
        shortest = self.norm.to_hyperplane(torch.zeros_like(delta), normal, offset, limit=limit, box=box)
        return (1 - pull) * onward + pull * shortest

    def _toward_nearest_alternative(self, problem: Problem) -> tuple[Tensor, int]:
        """Each image's projection onto the nearest linearised boundary: of its label with another class, or of a label.

        Labels have one alternative each; among the classes there is one less, as none is its own.
        """
        zero = torch.zeros_like(problem.inputs)
        margins = problem.criterion.alternatives(problem.logits(zero), problem.labels)
        count = max(1, margins.shape[1] - (problem.labels.dim() == 1))
        classes = margins.topk(min(self.candidates, count), dim=1, largest=False).indices
        best, nearest = zero, torch.full((len(problem),), torch.inf, dtype=zero.dtype, device=zero.device)
        for value, normal in problem.margins_to(classes):
            distance = self.norm.distance_to_hyperplane(value, normal)
            offset, limit = -(1 + _OVERSHOOT) * value, _REACH * distance.nan_to_num(posinf=0.0)
            moved = self.norm.to_hyperplane(zero, normal, offset, limit=limit, box=problem.box())
            closer = distance < nearest
            nearest = torch.where(closer, distance, nearest)
            best = torch.where(rowwise(closer, best), moved, best)
        return best, classes.shape[1]

    def _shortened(self, problem: Problem, best: _Best) -> Tensor:
        """Bisect each answer's last stretch toward its image: forward passes only."""
        rows = (best.size < torch.inf).nonzero().squeeze(1)
        if not len(rows):
            return best.delta
        part, delta = problem.rows(rows), best.delta[rows]
        near = torch.full_like(best.size[rows], 1 - _STRETCH)
        far = torch.ones_like(near)
        for _ in range(_REFINEMENTS):
            middle = (near + far) / 2
            met = part.value(rowwise(middle, delta) * delta) <= 0
            near, far = torch.where(met, near, middle), torch.where(met, middle, far)
        shortened = best.delta.clone()
        shortened[rows] = rowwise(far, delta) * delta
        return shortened


class _State:
    """Where the images still being worked on are: their rows, perturbations, last perturbations and overshoots."""

    def __init__(self, problem: Problem, start: Tensor) -> None:
        self.rows = torch.arange(len(problem), device=start.device)
        self.delta = self.previous = start
        self.overshoot = torch.full((len(problem),), _OVERSHOOT, dtype=start.dtype, device=start.device)

    def keep(self, going: Tensor) -> None:
        self.rows, self.overshoot = self.rows[going], self.overshoot[going]
        self.delta, self.previous = self.delta[going], self.previous[going]


class _Best:
    """The smallest perturbation that met the criterion, per image, and when it last improved noticeably.

    A gain is noticeable measured from the last noticeable one, so that many small gains count together.
    """

    def __init__(self, problem: Problem, norm: Norm) -> None:
        self.norm = norm
        self.delta = torch.zeros_like(problem.inputs)
        self.size = torch.full((len(problem),), torch.inf, dtype=problem.inputs.dtype, device=problem.inputs.device)
        self.improved_at = torch.zeros(len(problem), dtype=torch.int64, device=problem.inputs.device)
        self._noted_size = self.size.clone()

    def update(self, rows: Tensor, delta: Tensor, met: Tensor, step: int) -> None:
        size = self.norm.size(delta)
        better = met & (size < self.size[rows])
        self.delta[rows[better]] = delta[better]
        self.size[rows[better]] = size[better]
        noted = self._noted_size[rows]
        noticeable = torch.isinf(noted) | (met & (size < (1 - _GAIN) * noted))
        self.improved_at[rows[noticeable]] = step
        self._noted_size[rows[noticeable & met]] = size[noticeable & met]
