"""The smallest perturbation that meets a criterion: projections onto linearised boundaries, along several routes."""

from __future__ import annotations

import copy
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.attacks.base import Attack, Found
from captum_lipschitz.attacks.fallback import nearest_solved
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.attacks.tracks import Best, Tracks
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, row_dot, rowwise

_MOMENTUM = (0.5, 0.85)  # share of the previous move that is added before projecting: along an alternative, and after
_DECAY = 20.0  # steps over which the pull to the origin falls by a factor e
_PULL = (0.5, 0.05)  # weight of the origin's own projection: at the start, at the end
_OVERSHOOT = 0.02  # how far behind the boundary to aim at first, relative to the perturbation
_OVERSHOOT_GROWTH = 1.5  # what that is multiplied by after a step that did not meet the criterion
_OVERSHOOT_RANGE = (1e-5, 1.0)
_PATIENCE = 8  # steps without a noticeable gain after which a track ends
_REACH = 4.0  # the first move goes at most so many times the linearised distance (a box can ask for more than one)
_REFINEMENTS = 12  # halvings, forward passes only, of the last stretch between image and answer
_STRETCH = 0.02  # the length of that stretch relative to the answer
_GROWTH = (1.003, 1.01, 1.03, 1.1, 1.3)  # what answers found in lower precision are lengthened by until they hold


class Stage(NamedTuple):
    """Part of a search: each image's ``tracks`` most promising tracks go on for ``steps`` each.

    They follow the alternative that they were sent toward while ``along`` is set, and the criterion itself otherwise.
    """

    tracks: int
    steps: int
    along: bool = False


class Effort(NamedTuple):
    """How a search spends what an image may cost.

    ``candidates`` gradients choose the alternatives that tracks are sent toward, then come the stages; what remains of
    ``gradients`` polishes the best track. Tracks start on the linearised boundaries, and with ``twice`` at the image
    itself as well: they end in other places. The overshoot is multiplied by ``shrink`` after a step that met the
    criterion; a search of few steps has to be quicker about it.
    """

    gradients: int
    candidates: int
    stages: tuple[Stage, ...] = ()
    twice: bool = False
    shrink: float = 0.7


EFFORTS = {
    "fast": Effort(20, 4, shrink=0.6),
    "standard": Effort(100, 9, (Stage(9, 4, along=True), Stage(4, 6), Stage(2, 8))),
    "thorough": Effort(450, 9, (Stage(18, 12, along=True), Stage(18, 7), Stage(3, 12)), twice=True),
}


def _effort(effort: str, gradients: int | None) -> Effort:
    """An effort by name; with ``gradients``, the largest that costs no more, its remainder given to polishing."""
    if gradients is None:
        return EFFORTS[effort]
    fitting = [plan for plan in EFFORTS.values() if plan.gradients <= gradients]
    if not fitting:
        return EFFORTS["fast"]._replace(gradients=gradients, candidates=max(1, gradients // 5))
    return fitting[-1]._replace(gradients=gradients)


class MinimumNormAttack(Attack):
    """The smallest perturbation, by projections onto linearised boundaries along several routes.

    With g the criterion's value and w its gradient at the perturbation d, H is the linearised boundary moved inside
    by ``tau * |d| * |w|``, and a step is

        ``d <- (1 - a) * P(d + m * (d - d_previous)) + a * P(0)``,  P the projection onto H (within the bounds),

    with ``a`` falling from 0.5 to 0.05 as exp(-k / 20), ``m`` 0.85, and ``tau`` each track's own: smaller after a step
    that met the criterion, larger after another. What is found depends on the class that is approached first, so an
    image has several tracks: each starts toward one of the criterion's ``alternatives`` (``m`` 0.5), then follows the
    criterion itself, and the most promising go on. The smallest perturbation that met the criterion is kept, and
    shortened at the end by bisection.

    ===========  ==========================  ===========================================================================
    effort       gradients an image may cost
    ===========  ==========================  ===========================================================================
    fast         20                          4 choose the nearest boundary, 16 steps
    standard     100                         9 tracks of 4 steps, 4 of 6, 2 of 8, and what remains for the best
    thorough     450                         18 tracks of 19 steps (from the boundary and from the image), 3 of 12, ...
    ===========  ==========================  ===========================================================================

    A track ends after 8 steps without a gain of 0.1%, leaves the batch, and another takes its place; as many tracks
    run at once as images came. Solved images cost nothing. Among many classes those with the largest logits
    are candidates, 9 of them (4 for ``fast``), ordered by the distance of their linearised boundaries.

    Where no gradient leads to the criterion, the search falls back to the straight way toward the nearest image that
    meets it: one of ``starting_images``, the image's negative, or a flat one. Nothing is random. Answers are
    upper bounds still; ``benchmarks/RESULTS.md`` has them beside other attacks'.

    Args:
        effort: ``"fast"``, ``"standard"`` or ``"thorough"``.
        steps: gradients an image may cost, at least 1, in place of the effort's: the largest effort within them, the
            rest given to its best track.
        norm: see ``Attack``; with ``"linf"`` the projections are the smallest in that norm.
        bounds: see ``Attack``.
        starting_images: images of the data, (M, ...), to fall back to; each costs a forward pass where it is needed.
        autocast: ``torch.bfloat16`` or ``torch.float16`` to follow the many tracks in lower precision (``"fast"`` has
            one only); the best is polished, and every answer checked, in the inputs' own.

    Raises:
        InvalidInputError, InvalidTypeError: a setting that cannot be used.

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
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = None,
        starting_images: Tensor | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if effort not in EFFORTS:
            raise InvalidInputError(f"effort: expected one of {list(EFFORTS)}, got {effort!r}")
        if steps is not None and steps < 1:
            raise InvalidInputError(f"steps: expected at least 1, got {steps}")
        if autocast not in (None, torch.bfloat16, torch.float16):
            raise InvalidInputError(f"autocast: expected torch.bfloat16, torch.float16 or None, got {autocast}")
        if starting_images is not None:
            check_inputs(starting_images, "starting_images")
        self.effort = effort
        self.plan = _effort(effort, steps)
        self.starting_images = starting_images
        self.autocast = autocast

    def starting_from(self, images: Tensor) -> MinimumNormAttack:
        if self.starting_images is not None:
            return self
        other = copy.copy(self)
        other.starting_images = images.detach()
        return other

    def search(self, problem: Problem) -> Found:
        best = Best(problem)
        spent = torch.zeros(len(problem), dtype=torch.int64, device=problem.inputs.device)
        coarse = problem if self.autocast is None else problem.in_precision(self.autocast)
        tracks = self._start(problem, spent)  # one overflow here would stop the batch
        for stage in self.plan.stages:
            tracks.keep(stage.tracks, self.norm)
            self._follow(coarse, tracks, best, spent, steps=tracks.steps(stage.steps), along=stage.along)
        tracks.keep(1, self.norm)
        if self.autocast is not None:
            self._lengthen(problem, best)
        if self.plan.stages:
            self._fall_back(problem, tracks, best)
        tracks.renew_patience()
        self._follow(problem, tracks, best, spent, steps=self.plan.gradients - spent)
        best.update(tracks.image, tracks.delta, self.norm.size(tracks.delta), problem.value(tracks.delta) <= 0)
        self._fall_back(problem, tracks, best)
        return Found(self._shortened(problem, best), best.size < torch.inf, spent)

    def _start(self, problem: Problem, spent: Tensor) -> Tracks:
        """Tracks on the linearised boundaries of the criterion's alternatives, the nearest first."""
        zero = torch.zeros_like(problem.inputs)
        values = problem.criterion.alternatives(problem.logits(zero), problem.labels)
        there = torch.isfinite(values)
        columns = values.topk(min(self.plan.candidates, int(there.sum(1).max())), dim=1, largest=False).indices
        there = there.gather(1, columns)
        starts, distances = [], []
        for value, normal in problem.toward_alternatives(columns):
            distance = self.norm.distance_to_hyperplane(value, normal)
            offset, limit = -(1 + _OVERSHOOT) * value, _REACH * distance.nan_to_num(posinf=0.0)
            starts.append(self.norm.to_hyperplane(zero, normal, offset, limit=limit, box=problem.box()))
            if problem.bounds is not None:  # the box lengthens some ways more than others
                reached = row_dot(normal, starts[-1])
                distance = torch.where(reached < 0, self.norm.size(starts[-1]) * (offset / reached), distance)
            distances.append(distance)
        spent += there.sum(1)
        order = torch.stack(distances, 1).argsort(dim=1, stable=True)[:, : None if self.plan.stages else 1]
        rows = torch.arange(len(problem), device=zero.device)[:, None]
        routes, delta = torch.where(there, columns, -1).gather(1, order), torch.stack(starts, 1)[rows, order]
        if self.plan.twice:
            routes, delta = torch.cat([routes, routes], 1), torch.cat([delta, torch.zeros_like(delta)], 1)
        return Tracks(delta, routes, overshoot=_OVERSHOOT)

    def _fall_back(self, problem: Problem, tracks: Tracks, best: Best) -> None:
        """Where nothing was found yet, go on from the boundary toward another image."""
        rows = torch.isinf(best.size).nonzero().squeeze(1)
        if not len(rows):
            return
        delta, found = nearest_solved(problem.rows(rows), self.starting_images, self.norm)
        rows, delta = rows[found], delta[found]
        best.update(rows, delta, self.norm.size(delta), torch.ones_like(rows, dtype=torch.bool))
        first = rows * tracks.per_image
        tracks.delta[first] = tracks.previous[first] = delta

    def _follow(
        self, problem: Problem, tracks: Tracks, best: Best, spent: Tensor, *, steps: Tensor, along: bool = False
    ) -> None:
        """Take at most ``steps``, (T,), on each open track, as many tracks at once as there are images.

        Tracks that end leave the batch, and others take their places.
        """
        last = tracks.step + steps
        waiting = (tracks.open & (steps > 0)).nonzero().squeeze(1)
        active, waiting = waiting[: len(problem)], waiting[len(problem) :]
        part = problem.rows(tracks.image[active]) if len(active) else problem
        while len(active):
            self._advance(part, tracks, active, best, along=along)
            spent.index_add_(0, tracks.image[active], torch.ones_like(active))
            tracks.open[active] = tracks.step[active] - tracks.improved_at[active] <= _PATIENCE
            going = tracks.open[active] & (tracks.step[active] < last[active])
            ended = int((~going).sum())
            if ended:
                active, waiting = torch.cat([active[going], waiting[:ended]]), waiting[ended:]
                part = problem.rows(tracks.image[active]) if len(active) else part

    def _advance(self, part: Problem, tracks: Tracks, active: Tensor, best: Best, *, along: bool) -> None:
        """One step of the tracks ``active``, (n,), whose images are those of ``part``."""
        delta = tracks.delta[active]
        value, followed, normal = part.evaluate(delta, along=tracks.route[active] if along else None)
        met, size = value <= 0, self.norm.size(delta)
        tracks.note(active, size, met)
        best.update(tracks.image[active], delta, size, met)
        less, more = (tracks.overshoot[active] * factor for factor in (self.plan.shrink, _OVERSHOOT_GROWTH))
        tracks.overshoot[active] = torch.where(followed <= 0, less, more).clamp(*_OVERSHOOT_RANGE)
        moved = self._step(part, tracks, active, followed, normal, along=along)
        tracks.previous[active], tracks.delta[active] = delta, moved
        tracks.step[active] += 1

    def _step(
        self, part: Problem, tracks: Tracks, active: Tensor, value: Tensor, normal: Tensor, *, along: bool
    ) -> Tensor:
        delta, box = tracks.delta[active], part.box()
        size = self.norm.size(delta)
        slope = row_dot(normal, self.norm.steepest(normal))
        offset = row_dot(normal, delta) - value - tracks.overshoot[active] * size * slope
        limit = size.clamp(min=self.norm.unit_in_l2(delta))
        pull = (_PULL[0] * torch.exp(-tracks.step[active] / _DECAY)).clamp(min=_PULL[1]).to(delta.dtype)
        ahead = delta + _MOMENTUM[0 if along else 1] * (delta - tracks.previous[active])
        onward = self.norm.to_hyperplane(ahead, normal, offset, limit=limit, box=box)
        shortest = self.norm.to_hyperplane(torch.zeros_like(delta), normal, offset, limit=limit, box=box)
        return torch.lerp(onward, shortest, rowwise(pull, delta))

    def _lengthen(self, problem: Problem, best: Best) -> None:
        """Move answers found in lower precision outward until they hold in full; drop those that do not."""
        for growth in _GROWTH:
            failing = problem.value(best.delta) > 0
            best.delta = torch.where(rowwise(failing, best.delta), growth * best.delta, best.delta)
        failing = problem.value(best.delta) > 0
        best.size = torch.where(failing, torch.inf, self.norm.size(best.delta))

    def _shortened(self, problem: Problem, best: Best) -> Tensor:
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
