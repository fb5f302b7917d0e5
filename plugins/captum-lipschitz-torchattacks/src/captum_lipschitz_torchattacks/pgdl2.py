"""PGDL2 of torchattacks, an attack of fixed size, at the smallest size that succeeds: found for each image."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.attacks import Found, Problem
from captum_lipschitz.criteria import BelowChance, Misclassified
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import L2, Bounds, Norm, rowwise
from captum_lipschitz.objectives import margin
from captum_lipschitz_torchattacks.base import UNIT_BOX, TorchattacksAttack, torchattacks
from captum_lipschitz_torchattacks.flat_model import FlatModel

_ROUNDS = 40  # runs of PGDL2 at most; eight to twelve are usual
_START = (1e-4, 0.1)  # limits of the first size, relative to the largest: runs that are too large may also fail
_MARGIN = 10.0  # of the clean image in the logits shown: a sharp cross entropy, whose gradient float32 still holds
_DIVISOR = 1e-30  # guards against dividing by zero only: a larger one shrinks the steps where gradients are small


class TorchattacksPGDL2(TorchattacksAttack):
    """Projected gradient ascent of the cross entropy in L2, as torchattacks 3.5.1 has it, made minimal.

    Each image has its own size: at first its linearised distance to the boundary (at most a tenth of the way to the
    box's farthest corner), then doubled until PGDL2 succeeds or that corner is within reach, then bisected. Every
    success counts with the size that it really has. The smallest is the answer.

    PGDL2 starts from the image, never at random, so the same call gives the same answer. The cross entropy's gradient
    is not the boundary's normal: it vanishes where the model is sure, and mixes in the other classes where it is not.
    So torchattacks is shown logits times a factor of each image's own, which leaves the decision as it is:

        10 / margin for ``misclassified``,  10 / max(10, margin) for ``below_chance``,  margin = z_y - max_j z_j,

    of the clean image. (Without it, distances were 5 and 20% larger on two small networks.)

    Args:
        steps: of each PGDL2 run, at least 1.
        step_size: of each step, relative to the run's size, positive. 0.2 is torchattacks' own.
        tolerance: the bisection ends where the interval is this small relative to its upper end, in (0, 1).
        norm: ``"rmse"`` or ``"l2"``, which order perturbations alike.
        bounds: ``(0, 1)``, as torchattacks knows no other box.

    Raises:
        InvalidInputError: for a setting out of its range; when called, for a criterion other than ``misclassified``
            and ``below_chance``.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = TorchattacksPGDL2(norm="l2")(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.14)

    References:
        Madry et al. 2018, arXiv 1706.06083.
    """

    criteria = (Misclassified, BelowChance)

    def __init__(
        self,
        *,
        steps: int = 10,
        step_size: float = 0.2,
        tolerance: float = 0.01,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] = UNIT_BOX,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if not isinstance(self.norm, L2):
            raise InvalidInputError(f"norm: expected 'rmse' or 'l2', got {self.norm.name!r}")
        if steps < 1:
            raise InvalidInputError(f"steps: expected at least 1, got {steps}")
        if not step_size > 0:
            raise InvalidInputError(f"step_size: expected a positive share, got {step_size}")
        if not 0 < tolerance < 1:
            raise InvalidInputError(f"tolerance: expected a share in (0, 1), got {tolerance}")
        self.steps = steps
        self.step_size = step_size
        self.tolerance = tolerance

    def search(self, problem: Problem) -> Found:
        sizes = _Sizes(problem, self.tolerance)
        factor = _logits_factor(problem)
        spent = torch.ones_like(problem.labels)  # the linearisation's
        for _ in range(_ROUNDS):
            active = sizes.undecided()
            if not len(active):
                break
            part = problem.rows(active)
            delta = self._attack(part, sizes.next[active], factor[active])
            sizes.learn(active, delta, met=part.value(delta) <= 0)
            spent[active] += self.steps
        return Found(sizes.best, torch.isfinite(sizes.upper), spent)

    def _attack(self, problem: Problem, epsilon: Tensor, factor: Tensor) -> Tensor:
        """One run of PGDL2 with a size per image, (N,): perturbations, shaped as the inputs."""
        model = FlatModel(problem, dtype=epsilon.dtype, logits_factor=factor[:, None])
        images = model.images()
        attack = torchattacks().PGDL2(
            model,
            eps=epsilon,
            alpha=rowwise(self.step_size * epsilon, images),
            steps=self.steps,
            random_start=False,
            eps_for_division=_DIVISOR,
        )
        return model.perturbations(attack(images, problem.labels))


def _logits_factor(problem: Problem) -> Tensor:
    """What to multiply each image's logits by, (N,)."""
    clean = margin(_precise(problem.logits(torch.zeros_like(problem.inputs))), problem.labels)
    return _MARGIN / (clean.clamp(min=_MARGIN) if isinstance(problem.criterion, BelowChance) else clean)


class _Sizes:
    """What is known of each image's smallest size, in L2.

    Attributes:
        lower: (N,), the largest size that failed; 0 at first.
        upper: (N,), the smallest size that succeeded; ``inf`` at first.
        next: (N,), the size to try.
        best: the perturbations that ``upper`` was measured on, shaped as the inputs.
    """

    def __init__(self, problem: Problem, tolerance: float) -> None:
        self._problem = problem
        self._tolerance = tolerance
        self._norm = L2()
        self.best = torch.zeros_like(problem.inputs)
        images = _precise(problem.inputs)
        self._largest = self._norm.size(torch.maximum(images, 1 - images))
        value, normal = problem.evaluate(self.best)
        linearised = self._norm.distance_to_hyperplane(_precise(value), _precise(normal))
        self.lower = torch.zeros_like(self._largest)
        self.upper = torch.full_like(self._largest, torch.inf)
        self.next = linearised.clamp(_START[0] * self._largest, _START[1] * self._largest)

    def undecided(self) -> Tensor:
        """Index of the images to go on with: neither bracketed closely enough, nor beyond reach."""
        bracketed = self.upper - self.lower <= self._tolerance * self.upper
        beyond = torch.isinf(self.upper) & (self.lower >= self._largest)
        return (~((torch.isfinite(self.upper) & bracketed) | beyond)).nonzero().squeeze(1)

    def learn(self, rows: Tensor, delta: Tensor, *, met: Tensor) -> None:
        """Take in one run's perturbations of some images and which of them met the criterion."""
        part = self._problem.rows(rows)
        size = self._norm.size(_precise(part.images(delta)) - _precise(part.inputs))
        better = met & (size < self.upper[rows])
        self.best[rows[better]] = delta[better]
        self.upper[rows[better]] = size[better]
        self.lower[rows] = torch.where(met, self.lower[rows], self.next[rows])
        doubled = torch.minimum(2 * self.next, self._largest)
        self.next = torch.where(torch.isfinite(self.upper), (self.lower + self.upper) / 2, doubled)


def _precise(values: Tensor) -> Tensor:
    """In float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
