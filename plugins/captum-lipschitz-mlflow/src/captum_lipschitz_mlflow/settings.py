"""What can be written into ``evaluator_config``: JSON's types only, so that it can come from a file."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a measurement. Those that are not told here are those of ``accuracy_robustness_area``.

    Attributes:
        bounds: the box of the images, ``[low, high]``, or ``None`` for none.
        attack: a name that ``captum_lipschitz.create_attack`` knows; ``None`` for the library's own.
        attack_settings: the attack's own, as ``{"effort": "fast"}``; ``norm`` and ``bounds`` need not be repeated.
        criterion: ``"misclassified"`` or ``"below_chance"``.
        chance: ``"uniform"``, ``"majority"`` or a fraction.
        norm: ``"rmse"``, ``"l2"`` or ``"linf"``.
        scale: a number, or nested lists that broadcast to the images.
        doubts: ``"quick"``, ``"full"`` or ``"off"``.
        seed: of the interval's bootstrap; ``None`` for the library's.
        show_progress: a progress bar over the images.
        batch_size: images attacked at once, at least 1; ``None`` for the library's choice.
        max_images: how many of the data, from the first on, at least 1; ``None`` for all.
        input_shape: of one input as the network takes it, as ``[3, 32, 32]``; ``None`` for that of the model's
            signature or, where it has none, of the data as they are.
        explanations: how many images are shown beside their explanations; 0 for none, ``None`` for 4 where the inputs
            are images of 1 or 3 channels.
        rho: RMSE of an explanation; ``None`` for a tenth of the range that is drawn.
        class_names: by class number, for the picture: a list, or a mapping whose keys are numbers (JSON's are texts).
        name: what metrics and files begin with, so that one run can hold several measurements; of the characters that
            MLflow takes in the names of metrics, but ``/``.
    """

    bounds: Sequence[float] | None = None
    attack: str | None = None
    attack_settings: Mapping[str, Any] = field(default_factory=dict)
    criterion: str = "misclassified"
    chance: str | float = "uniform"
    norm: str = "rmse"
    scale: Any = None
    doubts: Any = "quick"
    seed: int | None = None
    show_progress: bool = False
    batch_size: int | None = None
    max_images: int | None = None
    input_shape: Sequence[int] | None = None
    explanations: int | None = None
    rho: float | None = None
    class_names: Sequence[str] | Mapping[int | str, str] | None = None
    name: str = "ara"

    @classmethod
    def of(cls, config: Mapping[str, Any] | None) -> Settings:
        """The settings that a configuration holds.

        Raises:
            InvalidTypeError: for a name that is none of theirs; the message lists them.
                Nothing has been measured by then, whichever setting it is.
            InvalidInputError: for a value that cannot be.

        Example:
            >>> Settings.of({"bounds": [0, 1], "max_images": 64}).max_images
            64
        """
        from captum_lipschitz.errors import InvalidTypeError  # imports torch

        unknown = sorted(map(str, set(config or ()) - set(NAMES)))
        if unknown:
            raise InvalidTypeError(f"evaluator_config: expected any of {list(NAMES)}, got {unknown}")
        settings = cls(**(config or {}))
        settings._check()
        return settings

    def to_dict(self) -> dict[str, Any]:
        """As JSON's types."""
        return asdict(self)

    def _check(self) -> None:
        self._check_types()
        self._check_values()
        self._check_numbers()
        self._check_names()

    def _check_types(self) -> None:
        from captum_lipschitz.errors import InvalidTypeError  # imports torch

        for name in ("attack", "criterion", "norm"):
            value = getattr(self, name)
            if not isinstance(value, str) and not (name == "attack" and value is None):
                raise InvalidTypeError(
                    f"{name}: expected a name, got {type(value).__name__}; with an object call "
                    "captum_lipschitz.accuracy_robustness_area and captum_lipschitz_mlflow.log_ara(result)"
                )
        if not isinstance(self.attack_settings, Mapping):
            raise InvalidTypeError(f"attack_settings: expected a mapping, got {self.attack_settings!r}")
        try:
            json.dumps(self.to_dict(), allow_nan=False)
        except (TypeError, ValueError) as error:
            raise InvalidTypeError(f"evaluator_config: expected JSON's types, got {self} ({error})") from error

    def _check_values(self) -> None:
        from captum_lipschitz.errors import InvalidInputError  # imports torch

        for name, least in (("batch_size", 1), ("max_images", 1), ("explanations", 0)):
            value = getattr(self, name)
            if value is not None and (not _is_whole(value) or value < least):
                raise InvalidInputError(f"{name}: expected a whole number of at least {least}, or None, got {value!r}")
        shape = self.input_shape
        if shape is not None and not (isinstance(shape, (list, tuple)) and shape and all(map(_is_size, shape))):
            raise InvalidInputError(f"input_shape: expected positive sizes, as [3, 32, 32], or None, got {shape!r}")
        if self.attack_settings and self.attack is None:
            raise InvalidInputError(f"attack: expected a name beside attack_settings={dict(self.attack_settings)!r}")

    def _check_numbers(self) -> None:
        """Those that torch or the picture would refuse only after the measurement, or in words of their own."""
        from captum_lipschitz.errors import InvalidInputError  # imports torch

        bounds = self.bounds
        pair = isinstance(bounds, (list, tuple)) and len(bounds) == 2 and all(map(_is_number, bounds))
        if bounds is not None and not pair:
            raise InvalidInputError(f"bounds: expected [low, high] or None, got {bounds!r}")
        if self.rho is not None and not (_is_number(self.rho) and self.rho > 0):
            raise InvalidInputError(f"rho: expected a positive number or None, got {self.rho!r}")
        if self.seed is not None and not (_is_whole(self.seed) and -(2**63) <= self.seed < 2**64):
            raise InvalidInputError(f"seed: expected a whole number of 64 bits or None, got {self.seed!r}")

    def _check_names(self) -> None:
        from captum_lipschitz.errors import InvalidInputError  # imports torch

        if not isinstance(self.name, str) or not _is_metric_name(self.name):
            raise InvalidInputError(
                "name: expected a short text of letters, digits, '_', '-', '.' and ' ' (as MLflow's metrics are), "
                f"with a letter or digit in it and not beginning with '..', got {self.name!r}"
            )
        names = self.class_names
        if isinstance(names, Mapping):
            fit = all(map(_is_class, names)) and all(isinstance(name, str) for name in names.values())
        else:
            fit = names is None or (isinstance(names, (list, tuple)) and all(isinstance(name, str) for name in names))
        if not fit:
            raise InvalidInputError(f'class_names: expected a list of texts, {{"0": text, ...}} or None, got {names!r}')


NAMES = tuple(setting.name for setting in fields(Settings))
"""The names of all settings."""


_CHARACTERS = re.compile(r"[\w.\- ]+" if os.name == "nt" else r"[\w.\- :]+")
"""What MLflow takes in the name of a metric, without the slash: it is the name of files as well."""
_LONGEST = 230
"""In bytes: MLflow's keys end at 250 characters, a file's name at 255 bytes, and both have a suffix of ours."""


def _is_metric_name(name: str) -> bool:
    told = any(map(str.isalnum, name)) and not name.startswith("..")
    return told and _CHARACTERS.fullmatch(name) is not None and len(name.encode()) <= _LONGEST


def _is_class(key: object) -> bool:
    return _is_whole(key) or (isinstance(key, str) and key.isdecimal())


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_size(value: Any) -> bool:
    return _is_whole(value) and value > 0
