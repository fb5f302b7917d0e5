"""What is trained and how: one YAML file, every entry checked before anything starts."""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints

import yaml

from captum_lipschitz._reading import read_regular
from captum_lipschitz.errors import InvalidInputError

_MOST_BYTES = 2**16  # of a file; a recipe has some hundred
_LONGEST = 100  # characters of a name that similar ones are looked for


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings that decide what the trained network is. Where it runs and what it is called are ``Run``'s.

    Attributes:
        model: one of torchvision's classifiers, by name.
        weights: a file to start from, ``"torchvision"`` for its own (downloaded), ``None`` for random ones.
        activation: ``"half_huber"`` puts the half-Huber ReLU in the place of every ReLU; smooth ones stay.
        delta: of the half-Huber ReLU.
        rounding_epochs: fine-tuning: epochs in which ReLUs grow round; 0 for half-Huber from the first step.
        resolution: side of the square that is trained on, in pixels.
        resize: short side that validation images are brought to before their centre is cut out, in pixels.
        crop_scale: least and greatest share of an image's area that a random crop shows.
        epochs: passes over the data; the last incomplete batch of each is left out.
        batch_size: images of all processes together in one step.
        optimizer: ``"sgd"`` (Nesterov) or ``"adamw"``.
        learning_rate: its greatest, at this ``batch_size``.
        momentum: of SGD.
        weight_decay: of weights; biases and normalisation layers have none.
        warmup_epochs: in which the learning rate rises from 0; then a cosine takes it back.
        clip_norm: greatest norm of a step's gradient, ``None`` for any.
        label_smoothing: in [0, 1).
        mixup: alpha of MixUp, 0 for none.
        cutmix: alpha of CutMix, 0 for none; with both, one of them at random for each batch.
        target_loss: the penalty's strength is controlled toward this task loss, ``None`` for no penalty.
        initial_strength: that the controller sets out from.
        gain: how fast the controller moves, with ``rise`` and ``fall``, see ``AdaptiveStrength``; ``None`` its own.
        rise: see ``AdaptiveStrength``; ``None`` its own.
        fall: see ``AdaptiveStrength``; ``None`` its own.
        every: the penalty is formed on each k-th step.
        adversarial: share of each batch that is replaced by the paper's adversarial images.
        precision: ``"bf16"`` (autocast) or ``"float32"``.
        channels_last: memory format of images and network (of images alone under ``"fsdp2"``).
        compile: whether the step is compiled.
        sharding: of several processes: ``"ddp"`` (each holds everything) or ``"fsdp2"``.
        seed: of weights, order, augmentation, draws.
        mean: per channel, subtracted within the network, in units of [0, 1].
        std: per channel, then divided by.
    """

    model: str
    weights: str | None = None
    activation: Literal["original", "half_huber"] = "original"
    delta: float = 0.5
    rounding_epochs: float = 0.0
    resolution: int = 224
    resize: int = 256
    crop_scale: tuple[float, float] = (0.08, 1.0)
    epochs: int = 90
    batch_size: int = 1024
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.5
    momentum: float = 0.9
    weight_decay: float = 5e-5
    warmup_epochs: float = 5.0
    clip_norm: float | None = None
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    target_loss: float | None = None
    initial_strength: float = 1.0
    gain: float | None = None
    rise: float | None = None
    fall: float | None = None
    every: int = 1
    adversarial: float = 0.0
    precision: Literal["bf16", "float32"] = "bf16"
    channels_last: bool = True
    compile: bool = False
    sharding: Literal["ddp", "fsdp2"] = "ddp"
    seed: int = 0
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        for name in ("delta", "resolution", "epochs", "batch_size", "learning_rate", "initial_strength", "every"):
            _require(getattr(self, name) > 0, name, "a positive number", getattr(self, name))
        for name in ("momentum", "weight_decay", "warmup_epochs", "rounding_epochs", "mixup", "cutmix"):
            _require(getattr(self, name) >= 0, name, "a number of at least 0", getattr(self, name))
        for name in ("label_smoothing", "adversarial"):
            _require(0 <= getattr(self, name) <= 1, name, "a share in [0, 1]", getattr(self, name))
        for name, length in (("crop_scale", 2), ("mean", 3), ("std", 3)):
            value = getattr(self, name)
            finite = all(map(math.isfinite, value))
            _require(len(value) == length and finite, name, f"{length} finite numbers", value)
        low, high = self.crop_scale
        _require(min(self.std) > 0, "std", "positive numbers", self.std)
        _require(0 < low <= high <= 1, "crop_scale", "two shares of an area, the smaller first", self.crop_scale)
        _require(self.resize >= self.resolution, "resize", f"at least the resolution {self.resolution}", self.resize)
        _require(
            self.warmup_epochs < self.epochs, "warmup_epochs", f"less than epochs, {self.epochs}", self.warmup_epochs
        )
        _require(  # or the network that is measured and written would be one whose ReLUs are not yet round
            self.rounding_epochs <= self.epochs,
            "rounding_epochs",
            f"at most epochs, {self.epochs}",
            self.rounding_epochs,
        )
        if self.adversarial and (self.mixup or self.cutmix):
            raise InvalidInputError("adversarial: expected no mixup or cutmix beside it, as the attack needs one label")


def read_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a YAML file of ``Recipe``'s entries, some of them changed: ``["epochs=2", "precision=float32"]``.

    Raises:
        InvalidInputError: the file cannot be read, or an entry is unknown or cannot be used.
    """
    try:
        content = _parsed(read_regular(path, most=_MOST_BYTES).decode("utf-8"))
        changes = [_parsed(f"{key}: {value}") for key, _, value in (text.partition("=") for text in overrides)]
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise InvalidInputError(f"config: {path} cannot be read as YAML ({error})") from error
    if not isinstance(content, dict) or not all(isinstance(change, dict) for change in changes):
        raise InvalidInputError(f"config: expected entries such as 'epochs: 90' in {path} and epochs=90 in --set")
    for change in changes:
        content |= change
    return recipe_of(content)


class _Loader(yaml.SafeLoader):
    """YAML of plain values, each entry once. No aliases: a few lines of them stand for more than memory can hold."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "expected no aliases", self.current_event.start_mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - PyYAML's
        keys = [key.value for key, _ in node.value]
        if len(set(map(str, keys))) != len(keys):
            raise yaml.constructor.ConstructorError(None, None, "expected each entry once", node.start_mark)
        return super().construct_mapping(node, deep)


def _parsed(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)  # noqa: S506 - it constructs what SafeLoader does


def recipe_of(entries: Mapping[str, Any]) -> Recipe:
    """A recipe from its entries, as YAML or JSON holds them.

    Raises:
        InvalidInputError: an entry is unknown, missing, or cannot be used.
    """
    kinds = get_type_hints(Recipe)
    for name in entries:
        if name not in kinds:
            close = difflib.get_close_matches(str(name)[:_LONGEST], kinds, n=1)
            raise InvalidInputError(
                f"config: expected entries among {sorted(kinds)}, got {reprlib.repr(name)}"
                + (f"; did you mean {close[0]!r}?" if close else "")
            )
    if "model" not in entries:
        raise InvalidInputError("config: expected an entry 'model', such as 'model: resnet50'")
    return Recipe(**{name: _read(name, value, kinds[name]) for name, value in entries.items()})


def as_entries(recipe: Recipe) -> dict[str, Any]:
    """The entries of a recipe, as JSON's types."""
    plain = dataclasses.asdict(recipe)
    return {name: list(value) if isinstance(value, tuple) else value for name, value in plain.items()}


def _read(name: str, value: Any, kind: Any) -> Any:
    """A YAML value as its entry's type; YAML takes 1e-4 for text."""
    options = get_args(kind) if type(None) in get_args(kind) else (kind,)
    if value is None and type(None) in options:
        return None
    wanted = next(option for option in options if option is not type(None))
    choices = get_args(wanted)
    if choices and all(isinstance(choice, str) for choice in choices):
        _require(value in choices, name, f"one of {list(choices)}", value)
        return value
    try:
        if wanted is bool or wanted is str:
            return _of_type(value, wanted)
        if wanted is int:
            whole = int(value)
            return _of_type(whole if float(value) == whole and not isinstance(value, bool) else None, int)
        if wanted is float:
            return _finite(float(_of_type(value, (int, float, str))))
        return tuple(float(part) for part in value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidInputError(
            f"{name}: expected {getattr(wanted, '__name__', wanted)}, got {reprlib.repr(value)}"
        ) from error


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(value)
    return value


def _of_type(value: Any, wanted: Any) -> Any:
    if not isinstance(value, wanted) or (isinstance(value, bool) and wanted is not bool):
        raise TypeError(value)
    return value


def _require(condition: bool, name: str, expected: str, got: object) -> None:  # noqa: FBT001 - the condition itself
    if not condition:
        raise InvalidInputError(f"{name}: expected {expected}, got {reprlib.repr(got)}")
