"""How much work goes into each measure of fidelity, and at what sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.objectives import as_objective


@dataclass(frozen=True, kw_only=True)
class FidelitySettings:
    """Sizes and counts of ``explanation_fidelity``; the defaults are those of standard effort.

    An explanation is called once for itself, ``sensitivity_samples`` and ``stability_draws`` times on changed images,
    and once on a randomised model: six times per image as it stands. All else costs forward passes of the model, some
    60 per image, half of which ``RememberedModel`` shares between methods.

    Attributes:
        steps: of the insertion and deletion curves, each of two forward passes.
        infidelity_samples: blocks removed from each image.
        objective: the output whose change infidelity predicts: ``"logit"``, which Captum's methods explain,
            ``"log_odds"``, ``"margin"`` or ``"cross_entropy"``.
        sensitivity_samples: changed images of max-sensitivity, explained anew.
        sensitivity_radius: largest change of a value there, in the inputs' units (times ``scale``).
        stability_draws: near-identical images, explained anew.
        stability_radius: largest change of a value there, in the inputs' units (times ``scale``): half a grey level
            of images in [0, 1] is 1/510, what rounding to 8 bits hides.
        rho: RMSE of the move along an explanation, in the inputs' units (over ``scale``).
        road_percentages: of the positions that ROAD removes.
        images_at_once: that an explanation is asked for; the values do not depend on it.

    Raises:
        InvalidInputError, InvalidTypeError: for settings out of range.

    Example:
        >>> FidelitySettings(rho=0.05).steps
        10
    """

    steps: int = 10
    infidelity_samples: int = 32
    objective: str = "logit"
    sensitivity_samples: int = 3
    sensitivity_radius: float = 0.02
    stability_draws: int = 1
    stability_radius: float = 1 / 510
    rho: float = 0.1
    road_percentages: tuple[float, ...] = (10, 30, 50, 70, 90)
    images_at_once: int = 16

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if field.type == "int":
                check_count(value, field.name)
            elif field.type == "float":
                check_size(value, field.name)
        as_objective(self.objective)
        check_percentages(self.road_percentages)


def check_count(value: object, name: str) -> None:
    """Raise unless a number of things is a positive integer."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise InvalidTypeError(f"{name}: expected an integer, got {value!r}")
    if value < 1:
        raise InvalidInputError(f"{name}: expected at least 1, got {value}")


def check_size(value: object, name: str) -> None:
    """Raise unless a size is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InvalidTypeError(f"{name}: expected a number, got {value!r}")
    if not 0 < value < math.inf:
        raise InvalidInputError(f"{name}: expected a finite number above 0, got {value}")


def check_percentages(values: object, name: str = "road_percentages") -> None:
    """Raise unless these are percentages, at least one, strictly between 0 and 100."""
    if not isinstance(values, (tuple, list)) or not values:
        raise InvalidTypeError(f"{name}: expected a tuple of percentages, got {values!r}")
    for value in values:
        check_size(value, name)
        if value >= 100:
            raise InvalidInputError(f"{name}: expected percentages below 100, got {value}")
