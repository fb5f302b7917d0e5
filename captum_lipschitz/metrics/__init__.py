"""Measures of robustness, and of explanations under attack: pure functions of a model and data."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_lipschitz.metrics.ara import accuracy_robustness_area as accuracy_robustness_area
from captum_lipschitz.metrics.by_class import ByClass as ByClass
from captum_lipschitz.metrics.by_class import ClassArea as ClassArea
from captum_lipschitz.metrics.calibration import RadiusCalibration as RadiusCalibration
from captum_lipschitz.metrics.calibration import radius_calibration as radius_calibration
from captum_lipschitz.metrics.comparison import AraComparison as AraComparison
from captum_lipschitz.metrics.comparison import compare as compare
from captum_lipschitz.metrics.confinement import confined_distances as confined_distances
from captum_lipschitz.metrics.doubts import Doubt as Doubt
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES as FIDELITY_MEASURES
from captum_lipschitz.metrics.fidelity import FidelitySettings as FidelitySettings
from captum_lipschitz.metrics.fidelity import FidelityTable as FidelityTable
from captum_lipschitz.metrics.fidelity import FidelityValues as FidelityValues
from captum_lipschitz.metrics.fidelity import compare_explanations as compare_explanations
from captum_lipschitz.metrics.fidelity import explanation_fidelity as explanation_fidelity
from captum_lipschitz.metrics.invalidated import InvalidationResult as InvalidationResult
from captum_lipschitz.metrics.invalidation import invalidation as invalidation
from captum_lipschitz.metrics.kept_explanation import KeptExplanation as KeptExplanation
from captum_lipschitz.metrics.kept_explanation import attack_keeping_explanation as attack_keeping_explanation
from captum_lipschitz.metrics.lipschitz import local_lipschitz as local_lipschitz
from captum_lipschitz.metrics.lipschitz import margin_radius as margin_radius
from captum_lipschitz.metrics.maps import Explain as Explain
from captum_lipschitz.metrics.maps import Make as Make
from captum_lipschitz.metrics.maps import position_maps as position_maps
from captum_lipschitz.metrics.masking import find_doubts as find_doubts
from captum_lipschitz.metrics.multilabel import MultilabelResult as MultilabelResult
from captum_lipschitz.metrics.multilabel import multilabel_robustness_areas as multilabel_robustness_areas
from captum_lipschitz.metrics.regions import EnergyOutside as EnergyOutside
from captum_lipschitz.metrics.regions import energy_outside as energy_outside
from captum_lipschitz.metrics.regions import important_region as important_region
from captum_lipschitz.metrics.result import AraResult as AraResult
from captum_lipschitz.metrics.similarity import Similarity as Similarity
from captum_lipschitz.metrics.similarity import cosine_similarity as cosine_similarity
from captum_lipschitz.metrics.similarity import map_similarity as map_similarity
from captum_lipschitz.metrics.similarity import rank_correlation as rank_correlation
from captum_lipschitz.metrics.similarity import structural_similarity as structural_similarity
from captum_lipschitz.metrics.similarity import top_overlap as top_overlap
from captum_lipschitz.metrics.temperature import BelowChanceAreas as BelowChanceAreas
from captum_lipschitz.metrics.temperature import below_chance_areas as below_chance_areas
from captum_lipschitz.metrics.temperature import fit_temperature as fit_temperature

if TYPE_CHECKING:
    from captum_lipschitz.metrics.metric import AccuracyRobustnessArea as AccuracyRobustnessArea

__all__ = [
    "FIDELITY_MEASURES",
    "AccuracyRobustnessArea",
    "AraComparison",
    "AraResult",
    "BelowChanceAreas",
    "ByClass",
    "ClassArea",
    "Doubt",
    "EnergyOutside",
    "Explain",
    "FidelitySettings",
    "FidelityTable",
    "FidelityValues",
    "InvalidationResult",
    "KeptExplanation",
    "Make",
    "MultilabelResult",
    "RadiusCalibration",
    "Similarity",
    "accuracy_robustness_area",
    "attack_keeping_explanation",
    "below_chance_areas",
    "compare",
    "compare_explanations",
    "confined_distances",
    "cosine_similarity",
    "energy_outside",
    "explanation_fidelity",
    "find_doubts",
    "fit_temperature",
    "important_region",
    "invalidation",
    "local_lipschitz",
    "map_similarity",
    "margin_radius",
    "multilabel_robustness_areas",
    "position_maps",
    "radius_calibration",
    "rank_correlation",
    "structural_similarity",
    "top_overlap",
]


def __getattr__(name: str) -> Any:
    if name == "AccuracyRobustnessArea":  # its module imports torchmetrics, and with it matplotlib
        return getattr(import_module("captum_lipschitz.metrics.metric"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
