"""The authors' four networks, ours, and short forms of all for a CPU."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from cifar10_training.recipe import Recipe

_PENALTY = {"activation": "half_huber", "target_loss": 1.5}

RECIPES: dict[str, Recipe] = {
    # The authors' four. Attacks see the network in training mode, as published, but leave BatchNorm's averages alone.
    "standard": Recipe(),
    "adversarial": Recipe(attack="fixed"),
    "robust": Recipe().changed(**_PENALTY),
    "all": Recipe().changed(**_PENALTY, attack="minimal", attacked=0.5, attack_rho=0.1),
    # Ours: the same penalty and attack on a wider network with a smooth activation, averaged weights and one cycle.
    "modern": Recipe(
        widths=(64, 128, 256),
        blocks=3,
        activation="silu",
        epochs=60.0,
        batch_size=256,
        learning_rate=0.2,
        schedule="one_cycle",
        weight_decay=5e-4,
        average=0.999,
        target_loss=1.0,
        initial_strength=20.0,
        gain=0.02,
        fall=1.0,
        attack="pgd",
        attacked=0.5,
        attack_rho=0.015,
    ),
}


@dataclass(frozen=True)
class Shortening:
    """How recipes are cut to what a CPU can do: a smaller network, fewer steps, a controller that moves faster.

    Attributes:
        changes: entries that every recipe gets.
        penalty: further entries of those with a penalty.
        average: of those that average weights: what 0.999 is to tens of thousands of steps.
    """

    changes: dict[str, Any] = field(default_factory=dict)
    penalty: dict[str, Any] = field(default_factory=dict)
    average: float = 0.98

    def of(self, recipe: Recipe) -> Recipe:
        """The recipe, shortened."""
        changes = self.changes | (self.penalty if recipe.target_loss is not None else {})
        return recipe.changed(**changes, average=min(recipe.average, self.average))


SHORTENED = Shortening(
    changes={
        "widths": (16, 32, 64),
        "blocks": 1,
        "first_stride": 2,
        "epochs": 2.5,
        "batch_size": 128,
        "learning_rate": 0.2,
        "schedule": "one_cycle",
        "weight_decay": 5e-4,
    },
    penalty={"initial_strength": 50.0, "gain": 0.1, "fall": 1.0, "every": 4},
)
