"""What the attacks that are made from an entry share: its settings, norms and demands on model and images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.attacks import AttackResult, Problem
from captum_lipschitz.criteria import BelowChance, Criterion, Misclassified
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, as_norm
from captum_lipschitz_torchattacks.base import TorchattacksAttack
from captum_lipschitz_torchattacks.entry import Entry


class EntryAttack(TorchattacksAttack):
    """Base of the attacks made from an ``Entry``.

    Args:
        entry: which class of torchattacks.
        seed: of the global random states during a run.
        norm: one of the entry's; ``None`` is the first.
        bounds: ``(0, 1)``.
        settings: arguments of the class.
    """

    def __init__(
        self,
        entry: Entry,
        *,
        seed: int,
        norm: Norm | str | None,
        bounds: Bounds | tuple[float, float],
        settings: Mapping[str, Any],
    ) -> None:
        self.name = f"torchattacks:{entry.name}"
        chosen = as_norm(entry.norms[0] if norm is None else norm)
        if chosen.name not in entry.norms:
            names = " or ".join(repr(name) for name in entry.norms)
            raise InvalidInputError(f"norm: {self.name} expects {names}, got {chosen.name!r}")
        super().__init__(norm=chosen, bounds=bounds)
        if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**32:
            raise InvalidInputError(f"seed: expected a whole number from 0 to 2**32 - 1, got {seed!r}")
        self.entry = entry
        self.seed = seed
        self.settings = entry.checked(settings)
        self.criteria = (Misclassified, BelowChance) if entry.below_chance else (Misclassified,)

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        inputs: Tensor,
        labels: Tensor,
        criterion: Criterion | str = "misclassified",
    ) -> AttackResult:
        """See ``captum_lipschitz.attacks.Attack``; inputs and criteria that the class cannot attack are refused."""
        self.entry.check_inputs(check_inputs(inputs, values=False))
        return super().__call__(model, inputs, labels, criterion)

    def arguments(self, problem: Problem) -> dict[str, Any]:
        """The arguments of the class for a problem's model, but for size and step."""
        classes = problem.logits(torch.zeros_like(problem.inputs)).shape[1]
        self.entry.check_classes(classes, self.settings)
        return {
            **self.entry.always,
            **self.settings,
            **({"norm": self.entry.norm_names[self.norm.name]} if self.entry.norm_names else {}),
            **({"seed": self.seed} if self.entry.seeds_itself else {}),
            **({"n_classes": classes} if self.entry.counts_classes else {}),
        }
