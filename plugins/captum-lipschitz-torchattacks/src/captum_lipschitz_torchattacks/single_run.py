"""The attacks of torchattacks that choose the size by themselves: run once, and looked at."""

from __future__ import annotations

from typing import Any

from captum_lipschitz.attacks import Found, Problem
from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz_torchattacks.base import UNIT_BOX
from captum_lipschitz_torchattacks.entry import Entry
from captum_lipschitz_torchattacks.entry_attack import EntryAttack
from captum_lipschitz_torchattacks.running import run


class TorchattacksSingleRun(EntryAttack):
    """An attack as torchattacks 3.5.1 has it, run once on each image, for ``misclassified`` and images in [0, 1].

    What it returns is run through the model again (an answer on the very boundary, as DeepFool's, may be moved outward
    by up to half a percent until it holds): a clean image returned for a failure (CW, EAD, JSMA, Pixle) is
    "not found", an infinite distance. Attacks that minimise something other than ``norm`` (L1, the number of changed
    features) are measured in it all the same, and are far from its smallest.

    The same call gives the same answer, and an image's does not depend on its neighbours: attacks that draw at random
    or stop for a batch as a whole are run on one image at a time, each from the same seed.

    Args:
        entry: which class, from ``single_table``.
        seed: of the global random states during the run; they are as before afterwards.
        norm: one of the entry's; ``None`` is the first.
        bounds: ``(0, 1)``, as torchattacks knows no other box.
        settings: the class's own arguments, by torchattacks' names; README.md lists them.

    Raises:
        InvalidInputError: for a setting that the class does not have or out of its range; when called, for a criterion
            other than ``misclassified`` or inputs that are not the images it needs.

    Example:
        >>> from captum_lipschitz import create_attack
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> attack = create_attack("torchattacks:DeepFool", norm="l2")
        >>> result = attack(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.14)

    References:
        Carlini and Wagner 2017, arXiv 1608.04644 (CW); Moosavi-Dezfooli et al. 2016, arXiv 1511.04599 (DeepFool); the
        entry's ``reference`` for the others.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        seed: int = 0,
        norm: Norm | str | None = None,
        bounds: Bounds | tuple[float, float] = UNIT_BOX,
        **settings: Any,
    ) -> None:
        super().__init__(entry, seed=seed, norm=norm, bounds=bounds, settings=settings)

    def search(self, problem: Problem) -> Found:
        perturbations, spent = run(self.entry, problem, self.arguments(problem), seed=self.seed)
        # All that was changed is a claim, for the caller to verify: some answers lie on the very boundary, and are
        # moved outward by a hair until they hold.
        changed = perturbations.flatten(1).abs().sum(1) > 0
        return Found(perturbations, changed, spent)
