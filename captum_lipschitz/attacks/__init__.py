"""Attacks: one per file, all called as ``attack(model, inputs, labels, criterion)``."""

from captum_lipschitz.attacks.base import Attack as Attack
from captum_lipschitz.attacks.base import AttackResult as AttackResult
from captum_lipschitz.attacks.base import Found as Found
from captum_lipschitz.attacks.ensemble import EnsembleAttack as EnsembleAttack
from captum_lipschitz.attacks.fixed_size import FixedSizeAttack as FixedSizeAttack
from captum_lipschitz.attacks.minimum_norm import MinimumNormAttack as MinimumNormAttack
from captum_lipschitz.attacks.paper import PaperAttack as PaperAttack
from captum_lipschitz.attacks.problem import Problem as Problem

__all__ = [
    "Attack",
    "AttackResult",
    "EnsembleAttack",
    "FixedSizeAttack",
    "Found",
    "MinimumNormAttack",
    "PaperAttack",
    "Problem",
]
