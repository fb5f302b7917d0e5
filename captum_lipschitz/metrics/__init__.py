"""Measures of robustness: pure functions of a model and data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_lipschitz.metrics.ara import accuracy_robustness_area as accuracy_robustness_area
from captum_lipschitz.metrics.by_class import ByClass as ByClass
from captum_lipschitz.metrics.by_class import ClassArea as ClassArea
from captum_lipschitz.metrics.calibration import RadiusCalibration as RadiusCalibration
from captum_lipschitz.metrics.calibration import radius_calibration as radius_calibration
from captum_lipschitz.metrics.comparison import AraComparison as AraComparison
from captum_lipschitz.metrics.comparison import compare as compare
from captum_lipschitz.metrics.doubts import Doubt as Doubt
from captum_lipschitz.metrics.lipschitz import local_lipschitz as local_lipschitz
from captum_lipschitz.metrics.lipschitz import margin_radius as margin_radius
from captum_lipschitz.metrics.masking import find_doubts as find_doubts
from captum_lipschitz.metrics.multilabel import MultilabelResult as MultilabelResult
from captum_lipschitz.metrics.multilabel import multilabel_robustness_areas as multilabel_robustness_areas
from captum_lipschitz.metrics.result import AraResult as AraResult
from captum_lipschitz.metrics.temperature import BelowChanceAreas as BelowChanceAreas
from captum_lipschitz.metrics.temperature import below_chance_areas as below_chance_areas
from captum_lipschitz.metrics.temperature import fit_temperature as fit_temperature

if TYPE_CHECKING:
    from captum_lipschitz.metrics.metric import AccuracyRobustnessArea as AccuracyRobustnessArea

__all__ = [
    "AccuracyRobustnessArea",
    "AraComparison",
    "AraResult",
    "BelowChanceAreas",
    "ByClass",
    "ClassArea",
    "Doubt",
    "MultilabelResult",
    "RadiusCalibration",
    "accuracy_robustness_area",
    "below_chance_areas",
    "compare",
    "find_doubts",
    "fit_temperature",
    "local_lipschitz",
    "margin_radius",
    "multilabel_robustness_areas",
    "radius_calibration",
]


def __getattr__(name: str) -> Any:
    if name == "AccuracyRobustnessArea":  # its module imports torchmetrics, and with it matplotlib
        return getattr(import_module("captum_lipschitz.metrics.metric"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
