"""The methods that are compared, and the settings that trace each one's curve of area against accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cifar10_training.recipe import Recipe
from cifar10_training.recipes import RECIPES, SHORTENED


@dataclass(frozen=True)
class Method:
    """One method.

    Attributes:
        title: in tables and pictures.
        recipe: the name of the recipe that it starts from.
        changes: entries that differ from it.
        knob: the entry that is varied.
        values: what it is set to in whole runs.
        shortened_values: likewise in shortened ones.
        share: of the epochs of ``robust``, so that runs take equal time: a step against attacks costs more than one
            with a penalty, and that more than a plain one.
        shortened_share: likewise, where the penalty is on every fourth step.
    """

    title: str
    recipe: str
    changes: dict[str, Any]
    knob: str
    values: tuple[float, ...]
    shortened_values: tuple[float, ...]
    share: float = 1.0
    shortened_share: float = 1.0

    def recipes(self, *, shortened: bool) -> Iterator[tuple[float, Recipe]]:
        """Each value of the knob with its recipe."""
        base = RECIPES[self.recipe].changed(**self.changes)
        base = SHORTENED.of(base) if shortened else base
        share = self.shortened_share if shortened else self.share
        base = base.changed(epochs=base.epochs * share)
        for value in self.shortened_values if shortened else self.values:
            setting = base.epochs * value if self.knob == "epochs" else value
            yield value, base.changed(**{self.knob: setting})


_LENGTHS = (1.0, 0.5, 0.25, 0.125)  # a plain network's only knob is how long it is trained
_TARGETS = (0.6, 1.0, 1.5, 1.8)
_SHORT_TARGETS = (1.2, 1.4, 1.6, 1.8, 2.0)

METHODS: dict[str, Method] = {
    "plain": Method("plain", "standard", {}, "epochs", _LENGTHS, _LENGTHS),
    "half-huber": Method("half-Huber only", "standard", {"activation": "half_huber"}, "epochs", _LENGTHS, _LENGTHS),
    "penalty-relu": Method(
        "penalty on ReLU", "robust", {"activation": "relu"}, "target_loss", _TARGETS, _SHORT_TARGETS
    ),
    "robust": Method("penalty and half-Huber", "robust", {}, "target_loss", _TARGETS, _SHORT_TARGETS),
    "adversarial": Method(
        "adversarial training (PGD), equal time",
        "adversarial",
        {"attack": "pgd"},
        "attack_rho",
        (0.0025, 0.005, 0.01, 0.02),
        (0.0025, 0.005, 0.01, 0.02),
        share=0.4,
        shortened_share=0.23,
    ),
    "all": Method(
        "all together, equal time",
        "all",
        {"attack": "pgd", "attack_rho": 0.01},
        "target_loss",
        _TARGETS,
        (1.7, 1.8, 1.9, 2.0),  # lower losses are not reached in so few steps
        share=0.4,
        shortened_share=0.3,
    ),
}
