"""The attacks that networks are trained against."""

from __future__ import annotations

import torch

from captum_lipschitz import AdversarialTraining, Attack, PaperAttack
from captum_lipschitz.attacks.base import Found
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.geometry import rowwise
from cifar10_training.recipe import Recipe

_STRIDE = 2.5  # of a path that reaches any place of the ball from any other


class ProjectedGradient(PaperAttack):
    """Projected gradient descent in RMSE: equal steps up the cross entropy, each followed by a move back into the ball.

    A fixed-size attack as ``PaperAttack(mode="fixed")`` is, so every attacked image is trained on. It starts at the
    image.

    Args:
        rho: radius of the ball, RMSE.
        steps: gradients, each followed by a step of 2.5 * rho / steps.

    References:
        Madry et al. 2018, arXiv 1706.06083.
    """

    def __init__(self, *, rho: float, steps: int) -> None:
        super().__init__(mode="fixed", steps=steps, rho=rho, momentum=0.0, objective="cross_entropy")

    def search(self, problem: Problem) -> Found:
        delta = torch.zeros_like(problem.inputs)
        for _ in range(self.steps):
            slope = problem.evaluate(delta, self.objective).gradient
            delta = delta + _STRIDE * self.rho / self.steps * self.norm.steepest(-slope)
            delta = delta * rowwise((self.rho / self.norm.size(delta)).clamp(max=1), delta)
        return Found(delta, problem.value(delta) <= 0, self._spent(problem))


def adversary_of(recipe: Recipe, generator: torch.Generator) -> AdversarialTraining | None:
    """Who replaces images of a batch by attacked ones, or ``None``."""
    if recipe.attack is None:
        return None
    steps, rho = recipe.attack_steps, recipe.attack_rho
    attack: Attack
    if recipe.attack == "pgd":
        attack = ProjectedGradient(rho=rho, steps=steps)
    else:
        attack = PaperAttack(mode=recipe.attack, steps=steps, rho=rho, momentum=0.0, objective="cross_entropy")
    return AdversarialTraining(attack=attack, probability=recipe.attacked, generator=generator)
