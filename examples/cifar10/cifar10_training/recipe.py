"""What decides how a network is trained: its entries, checked."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_type_hints

from captum_lipschitz.errors import InvalidInputError


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what a training run does, but for the images and the seed.

    The defaults are the paper's settings for CIFAR-10, without penalty and attacks.

    Attributes:
        widths: channels of the stages; the first stage keeps the resolution, each other one halves it.
        blocks: residual blocks in a stage.
        first_stride: of the first convolution; 2 makes everything four times cheaper.
        activation: ``"relu"``, ``"half_huber"`` (delta 0.5) or ``"silu"``.
        epochs: of the training images; may be a fraction.
        batch_size: images in a step.
        learning_rate: the largest.
        schedule: ``"steps"``, divided by 10 after 85% and 97.5% of the steps, as published; or ``"one_cycle"``, linear
            up during the first fifth and linear down to 0.
        momentum: of SGD.
        weight_decay: of SGD, on all parameters.
        average: share of the old in a running average of the weights, which is what is measured; 0 for none.
        target_loss: cross entropy in nats that the penalty's strength is adapted to hold; ``None`` for no penalty.
        initial_strength: psi_0.
        gain: k, of the controller.
        rise: its largest step up.
        fall: its largest step down.
        every: the penalty on each k-th step only.
        tandem_probability: zeta.
        attack: what images of a batch are replaced by: ``"fixed"`` and ``"minimal"`` are the paper's attacks,
            ``"pgd"`` projected gradient descent; ``None`` for none.
        attacked: share of the images that are.
        attack_rho: size of the attack, RMSE; of a minimal one its budget.
        attack_steps: gradients for each attack.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 7
    first_stride: int = 1
    activation: Literal["relu", "half_huber", "silu"] = "relu"
    epochs: float = 200.0
    batch_size: int = 128
    learning_rate: float = 0.1
    schedule: Literal["steps", "one_cycle"] = "steps"
    momentum: float = 0.9
    weight_decay: float = 1e-4
    average: float = 0.0
    target_loss: float | None = None
    initial_strength: float = 220.0
    gain: float = 0.02
    rise: float = 1.0
    fall: float = 0.01
    every: int = 1
    tandem_probability: float = 0.2
    attack: Literal["fixed", "minimal", "pgd"] | None = None
    attacked: float = 1.0
    attack_rho: float = 0.01
    attack_steps: int = 7

    def __post_init__(self) -> None:
        for name in ("epochs", "learning_rate", "initial_strength", "gain", "rise", "fall", "attack_rho"):
            _require(math.isfinite(getattr(self, name)), name, "a finite number", getattr(self, name))
        for name in ("epochs", "batch_size", "learning_rate", "initial_strength", "gain", "rise", "fall", "every"):
            _require(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        for name in ("blocks", "first_stride", "attack_rho", "attack_steps"):
            _require(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        for name in ("tandem_probability", "attacked"):
            _require(0 <= getattr(self, name) <= 1, name, "a share in [0, 1]", getattr(self, name))
        for name in ("average", "momentum"):
            _require(0 <= getattr(self, name) < 1, name, "a share in [0, 1)", getattr(self, name))
        _require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _require(self.target_loss is None or self.target_loss > 0, "target_loss", "a loss above 0", self.target_loss)
        _require(bool(self.widths) and min(self.widths) > 0, "widths", "numbers of channels", self.widths)

    def changed(self, **entries: Any) -> Recipe:
        """The same with some entries changed; unknown ones and values that cannot be used raise InvalidInputError."""
        kinds = get_type_hints(Recipe)
        for name, value in entries.items():
            if name not in kinds:
                raise InvalidInputError(f"recipe: expected entries among {sorted(kinds)}, got {name!r}")
            entries[name] = _checked(name, value, kinds[name])
        return dataclasses.replace(self, **entries)

    def to_dict(self) -> dict[str, Any]:
        """The entries as JSON's types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))  # type: ignore[no-any-return]


def overrides(texts: Sequence[str]) -> dict[str, Any]:
    """Entries from a command line: ``["epochs=2", "widths=[16, 32]", "target_loss=null"]``, values as JSON or words.

    Raises:
        InvalidInputError: one is not of this form.
    """
    entries: dict[str, Any] = {}
    for text in texts:
        name, separator, value = text.partition("=")
        _require(bool(separator and name), "set", "NAME=VALUE", text)
        try:
            entries[name] = json.loads(value)
        except json.JSONDecodeError:
            entries[name] = value
    return entries


def _checked(name: str, value: Any, kind: Any) -> Any:
    """A value as JSON has it, in its entry's own type."""
    options = get_args(kind) if type(None) in get_args(kind) else (kind,)
    if value is None:
        _require(type(None) in options, name, "a value", value)
        return None
    wanted = next(option for option in options if option is not type(None))
    if isinstance(value, (list, tuple)):
        _require(name == "widths" and all(type(one) is int for one in value), name, "no list", value)
        return tuple(value)
    choices = get_args(wanted)
    if choices and name != "widths":
        _require(value in choices, name, f"one of {list(choices)}", value)
        return value
    fits = type(value) is int if wanted is int else type(value) in (int, float)
    _require(fits and name != "widths", name, "a whole number" if wanted is int else "a number", value)
    return wanted(value)


def _require(condition: bool, name: str, expected: str, got: object) -> None:  # noqa: FBT001 - the condition itself
    if not condition:
        raise InvalidInputError(f"{name}: expected {expected}, got {got!r}")
