"""The attacks of given size of torchattacks, each at the smallest size that succeeds: found for each image."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.attacks import Found, Problem
from captum_lipschitz.attacks.bisection import check_search, precise, smallest_perturbations
from captum_lipschitz.criteria import BelowChance
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz.objectives import margin
from captum_lipschitz_torchattacks.base import UNIT_BOX
from captum_lipschitz_torchattacks.entry import Entry
from captum_lipschitz_torchattacks.entry_attack import EntryAttack
from captum_lipschitz_torchattacks.running import run

_MARGIN = 10.0  # of the clean image in the logits shown: a sharp cross entropy, whose gradient float32 still holds


class TorchattacksFixedSize(EntryAttack):
    """An attack of given size as torchattacks 3.5.1 has it, made minimal.

    Each image has its own size: at first its linearised distance to the boundary (at most a tenth of the way to the
    box's farthest corner), then doubled until the attack succeeds or that corner is within reach, then bisected. Every
    success is looked up by running the model and counts with the size that it really has. The smallest is the answer.

    The cross entropy's gradient is not the boundary's normal: it vanishes where the model is sure, and mixes in the
    other classes where it is not. So torchattacks is shown logits times a factor of each image's own, which leaves the
    decision as it is:

        10 / margin for ``misclassified``,  10 / max(10, margin) for ``below_chance``,  margin = z_y - max_j z_j,

    of the clean image. (Without it, distances of PGDL2 were 5 and 20% larger on two small networks.)

    The same call gives the same answer, and an image's does not depend on its neighbours: iterated attacks start from
    the image where they can; those that draw at random, or know one size for a whole batch only, are run on one image
    at a time, each from the same seed, and take as long as single images do.

    Args:
        entry: which class, from ``sized_table``.
        step_size: of each step, relative to the run's size, positive; ``None`` is torchattacks' own ratio.
        tolerance: the bisection ends where the interval is this small relative to its upper end, in (0, 1).
        seed: of the global random states during each run; they are as before afterwards.
        norm: one of the entry's; ``None`` is the first.
        bounds: ``(0, 1)``, as torchattacks knows no other box.
        settings: the class's own arguments, by torchattacks' names; README.md lists them.

    Raises:
        InvalidInputError: for a setting that the class does not have or out of its range; when called, for a criterion
            that it cannot pursue, inputs that are not the images it needs, or a model of too few classes.

    Example:
        >>> from captum_lipschitz import create_attack
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> attack = create_attack("torchattacks:PGDL2", steps=5, norm="l2")
        >>> result = attack(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.14)

    References:
        Madry et al. 2018, arXiv 1706.06083 (PGD); Croce and Hein 2020, arXiv 2003.01690 (APGD, AutoAttack); the entry's
        ``reference`` for the others.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        step_size: float | None = None,
        tolerance: float = 0.01,
        seed: int = 0,
        norm: Norm | str | None = None,
        bounds: Bounds | tuple[float, float] = UNIT_BOX,
        **settings: Any,
    ) -> None:
        super().__init__(entry, seed=seed, norm=norm, bounds=bounds, settings=settings)
        check_search(tolerance=tolerance, rounds=1, largest=None)
        if step_size is not None and not entry.step:
            raise InvalidInputError(f"step_size: {self.name} has no step of its own, got {step_size}")
        if step_size is not None and not step_size > 0:
            raise InvalidInputError(f"step_size: expected a positive share, got {step_size}")
        self.step_size = entry.step_size if step_size is None else step_size
        self.tolerance = tolerance

    def search(self, problem: Problem) -> Found:
        arguments = self.arguments(problem)
        factor = _logits_factor(problem)

        def sized(part: Problem, rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
            return run(
                self.entry,
                part,
                arguments,
                sizes=self._in_its_unit(part, sizes),
                step_size=self.step_size,
                logits_factor=factor[rows],
                seed=self.seed,
            )

        return smallest_perturbations(problem, sized, norm=self.norm, tolerance=self.tolerance)

    def _in_its_unit(self, problem: Problem, sizes: Tensor) -> Tensor:
        """Sizes in the norm that the class takes them in."""
        if self.norm.name == "linf":
            return sizes
        l2 = sizes / self.norm.unit_in_l2(problem.inputs)
        return l2 / problem.inputs[0].numel() ** 0.5 if self.entry.unit == "rmse" else l2


def _logits_factor(problem: Problem) -> Tensor:
    """What to multiply each image's logits by, (N,)."""
    clean = margin(precise(problem.logits(torch.zeros_like(problem.inputs))), problem.labels)
    if isinstance(problem.criterion, BelowChance):
        scale = 1 / problem.criterion.temperature
        return scale * _MARGIN / (scale * clean).clamp(min=_MARGIN)
    return _MARGIN / clean.clamp(min=torch.finfo(clean.dtype).tiny * _MARGIN)
