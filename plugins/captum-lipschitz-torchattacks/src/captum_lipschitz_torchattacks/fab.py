"""FAB of torchattacks, which looks for the smallest perturbation by itself."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.attacks import Found, Problem
from captum_lipschitz.criteria import Misclassified
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Linf, Norm
from captum_lipschitz_torchattacks.base import UNIT_BOX, TorchattacksAttack, torchattacks
from captum_lipschitz_torchattacks.shown_model import ShownModel


class TorchattacksFAB(TorchattacksAttack):
    """The Fast Adaptive Boundary attack as torchattacks 3.5.1 has it, for ``misclassified`` and images in [0, 1].

    Each step goes to the nearest of the linearised boundaries between the label and the other classes. The smallest
    perturbation on the way is the answer, however large (torchattacks itself drops those above its ``eps``). It starts
    from the image, with no random restart. It works in float32 whatever the inputs' dtype.

    Its cost in gradients is ``steps`` times the number of classes, or of ``targets``; its memory, without ``targets``,
    that of a gradient for each class. An ARA measured with it alone overstates robustness: README.md has
    figures.

    Args:
        steps: at least 1.
        targets: ``None`` compares all classes at each step. A number k runs towards each of the k classes with the
            largest logits in turn (at most the number of other classes), and keeps the smallest answer.
        alpha_max: the largest share of the step from the clean image, in (0, 1].
        overshoot: the factor on each projection, at least 1 (torchattacks' ``eta``).
        beta: the share of the perturbation that is kept after a success, in (0, 1).
        norm: ``"rmse"``, ``"l2"`` (the same search) or ``"linf"``.
        bounds: ``(0, 1)``, as torchattacks knows no other box.

    Raises:
        InvalidInputError: for a setting out of its range; when called, for another criterion than ``misclassified``.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = TorchattacksFAB(norm="l2")(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.14)

    References:
        Croce and Hein 2020, arXiv 1907.02044.
    """

    name = "torchattacks:FAB"
    criteria = (Misclassified,)

    def __init__(
        self,
        *,
        steps: int = 10,
        targets: int | None = None,
        alpha_max: float = 0.1,
        overshoot: float = 1.05,
        beta: float = 0.9,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] = UNIT_BOX,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if steps < 1:
            raise InvalidInputError(f"steps: expected at least 1, got {steps}")
        if targets is not None and targets < 1:
            raise InvalidInputError(f"targets: expected at least 1, or None, got {targets}")
        if not 0 < alpha_max <= 1:
            raise InvalidInputError(f"alpha_max: expected a share in (0, 1], got {alpha_max}")
        if not overshoot >= 1:
            raise InvalidInputError(f"overshoot: expected a factor of at least 1, got {overshoot}")
        if not 0 < beta < 1:
            raise InvalidInputError(f"beta: expected a share in (0, 1), got {beta}")
        self.targets = targets
        self.settings = {"steps": steps, "alpha_max": alpha_max, "eta": overshoot, "beta": beta}

    def search(self, problem: Problem) -> Found:
        model = ShownModel(problem, dtype=torch.float32)
        classes = problem.logits(torch.zeros_like(problem.inputs)).shape[1]
        norm = "Linf" if isinstance(self.norm, Linf) else "L2"
        attack = torchattacks().FAB(model, norm=norm, n_classes=classes, **self.settings)
        best = torch.zeros_like(problem.inputs)
        best_size = torch.full((len(problem),), torch.inf, dtype=best.dtype, device=best.device)
        for rank in self._ranks(classes):
            delta = model.perturbations(self._run(attack, model.images(), problem.labels, rank))
            size = self.norm.size(problem.images(delta) - problem.inputs)
            better = (problem.value(delta) <= 0) & (size < best_size)
            best[better], best_size[better] = delta[better], size[better]
        spent = torch.full((len(problem),), model.backward_passes, device=best.device)
        return Found(best, best_size < torch.inf, spent)

    @torch.no_grad()
    def _run(self, attack: Any, images: Tensor, labels: Tensor, rank: int | None) -> Tensor:
        """A single run: the loop around it in torchattacks seeds the global random state, and stops at its ``eps``."""
        if rank is None:
            untargeted: Tensor = attack.attack_single_run(images, labels)
            return untargeted
        attack.multi_targeted, attack.target_class = True, rank
        targeted: Tensor = attack.attack_single_run_targeted(images, labels)
        return targeted

    def _ranks(self, classes: int) -> list[int | None]:
        """Which class each run goes to, 2 having the largest logit but for the label's; ``None`` for the nearest."""
        return [None] if self.targets is None else list(range(2, min(self.targets, classes - 1) + 2))
