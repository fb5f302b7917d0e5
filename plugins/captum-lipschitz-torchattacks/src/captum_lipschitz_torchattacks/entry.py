"""What there is to know of one class of torchattacks in order to wrap it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from torch import Tensor

from captum_lipschitz.errors import InvalidInputError

Setting: TypeAlias = int | float | tuple[str, ...]
"""A default: a whole number (then at least 1), a float (then finite, at least 0), or the choices, the default first."""

Unit: TypeAlias = Literal["linf", "l2", "rmse"]


@dataclass(frozen=True)
class Entry:
    """One wrapped class.

    Attributes:
        name: of the class.
        summary: one line for listings.
        reference: where the method is described.
        norms: those that an answer may be measured in, the default first.
        settings: arguments of the class that the user may set, by torchattacks' names.
        at_least: the smallest value of a whole number in ``settings``, where that is not 1.
        member_settings: those of ``settings`` that are not arguments of the class but of attacks inside it.
        always: arguments of the class that are always the same.
        norm_names: the class's argument ``norm`` for each norm; empty where it has no such argument.
        size: the argument that is the attack's size; empty where the attack has none.
        unit: what that size is in, but for ``norm_names``.
        flat_size: whether sizes are passed as (n,), rather than (n, 1, 1, 1).
        step: the argument that is its step; empty where it has none.
        step_size: the step relative to the size.
        alone: whether images are attacked one at a time: the class takes one size, draws for a batch as a whole, or
            stops for all at once.
        below_chance: whether ``below_chance`` can be pursued, too: it goes on after a misclassification.
        seeds_itself: whether the class has an argument ``seed``.
        counts_classes: whether the class has an argument ``n_classes``.
        min_classes: how many classes the model must have.
        min_classes_for: the same for a choice in ``settings``.
        float32: whether the class fails for float64.
        lift_logits: see ``ShownModel``.
        toward_runner_up: whether the class must be told where to go: to the class with the second largest logit.
        needs_images: whether inputs must be images (N, C, H, W).
        square: whether those must be as high as they are wide.
        channels: how many of them, or ``None`` for any.
        min_side: how many pixels high and wide at least.
    """

    name: str
    summary: str
    reference: str
    norms: tuple[str, ...]
    settings: Mapping[str, Setting] = field(default_factory=dict)
    at_least: Mapping[str, int] = field(default_factory=dict)
    member_settings: tuple[str, ...] = ()
    always: Mapping[str, object] = field(default_factory=dict)
    norm_names: Mapping[str, str] = field(default_factory=dict)
    size: str = ""
    unit: Unit = "linf"
    flat_size: bool = False
    step: str = ""
    step_size: float = 0.25
    alone: bool = False
    below_chance: bool = False
    seeds_itself: bool = False
    counts_classes: bool = False
    min_classes: int = 2
    min_classes_for: Mapping[str, int] = field(default_factory=dict)
    float32: bool = False
    lift_logits: bool = False
    toward_runner_up: bool = False
    needs_images: bool = False
    square: bool = False
    channels: int | None = None
    min_side: int = 1

    def checked(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All settings, those given in place of the defaults.

        Raises:
            InvalidInputError: for a setting that the class does not have or a value that cannot be used.
        """
        unknown = sorted(set(given) - set(self.settings))
        if unknown:
            raise InvalidInputError(
                f"{unknown[0]}: torchattacks:{self.name} has no such setting; it has {sorted(self.settings)}"
            )
        return {
            name: _checked(name, given[name], default, self.at_least.get(name, 1))
            if name in given
            else _default(default)
            for name, default in self.settings.items()
        }

    def check_inputs(self, inputs: Tensor) -> None:
        """Raise ``InvalidInputError`` for inputs that the class cannot attack."""
        if not self.needs_images:
            return
        shape = tuple(inputs.shape)
        fits = len(shape) == 4 and min(shape[2:]) >= self.min_side and (not self.square or shape[2] == shape[3])
        if not fits or self.channels not in (None, shape[1]):
            kind = f"({'square, ' if self.square else ''}at least {self.min_side} pixels high and wide)"
            raise InvalidInputError(
                f"inputs: torchattacks:{self.name} expects images (N, {self.channels or 'C'}, H, W) {kind}, got {shape}"
            )

    def check_classes(self, count: int, settings: Mapping[str, Any]) -> None:
        """Raise ``InvalidInputError`` for a model of too few classes."""
        chosen = [needed for choice, needed in self.min_classes_for.items() if choice in settings.values()]
        needed = max([self.min_classes, *chosen])
        if count < needed:
            raise InvalidInputError(f"model: torchattacks:{self.name} expects at least {needed} classes, got {count}")


def _default(default: Setting) -> int | float | str:
    return default[0] if isinstance(default, tuple) else default


def _checked(name: str, value: object, default: Setting, at_least: int) -> object:
    if isinstance(default, tuple):
        if value not in default:
            raise InvalidInputError(f"{name}: expected one of {sorted(default)}, got {value!r}")
    elif isinstance(default, int):
        if not isinstance(value, int) or isinstance(value, bool) or value < at_least:
            raise InvalidInputError(f"{name}: expected a whole number of at least {at_least}, got {value!r}")
    elif not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise InvalidInputError(f"{name}: expected a finite number of at least 0, got {value!r}")
    return value
