"""Robust training, adversarial explanations and the Accuracy-Robustness Area, as an extension of Captum.

After Woods, Chen and Teuscher 2019, "Adversarial Explanations for Understanding Image Classification Decisions and
Improved Neural Network Robustness", arXiv 1906.02896.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from captum_lipschitz import errors as errors
from captum_lipschitz.attacks import Attack as Attack
from captum_lipschitz.attacks import AttackResult as AttackResult
from captum_lipschitz.attacks import EnsembleAttack as EnsembleAttack
from captum_lipschitz.attacks import FixedSizeAttack as FixedSizeAttack
from captum_lipschitz.attacks import MinimumNormAttack as MinimumNormAttack
from captum_lipschitz.attacks import PaperAttack as PaperAttack
from captum_lipschitz.criteria import BelowChance as BelowChance
from captum_lipschitz.criteria import Criterion as Criterion
from captum_lipschitz.criteria import LabelFlips as LabelFlips
from captum_lipschitz.criteria import Misclassified as Misclassified
from captum_lipschitz.criteria import Reaches as Reaches
from captum_lipschitz.geometry import L2 as L2
from captum_lipschitz.geometry import RMSE as RMSE
from captum_lipschitz.geometry import Bounds as Bounds
from captum_lipschitz.geometry import Linf as Linf
from captum_lipschitz.geometry import Norm as Norm
from captum_lipschitz.metrics import AraComparison as AraComparison
from captum_lipschitz.metrics import AraResult as AraResult
from captum_lipschitz.metrics import BelowChanceAreas as BelowChanceAreas
from captum_lipschitz.metrics import ClassArea as ClassArea
from captum_lipschitz.metrics import Doubt as Doubt
from captum_lipschitz.metrics import MultilabelResult as MultilabelResult
from captum_lipschitz.metrics import RadiusCalibration as RadiusCalibration
from captum_lipschitz.metrics import accuracy_robustness_area as accuracy_robustness_area
from captum_lipschitz.metrics import below_chance_areas as below_chance_areas
from captum_lipschitz.metrics import compare as compare
from captum_lipschitz.metrics import fit_temperature as fit_temperature
from captum_lipschitz.metrics import local_lipschitz as local_lipschitz
from captum_lipschitz.metrics import margin_radius as margin_radius
from captum_lipschitz.metrics import multilabel_robustness_areas as multilabel_robustness_areas
from captum_lipschitz.metrics import radius_calibration as radius_calibration
from captum_lipschitz.nn import HalfHuberReLU as HalfHuberReLU
from captum_lipschitz.nn import replace_activations as replace_activations
from captum_lipschitz.plugin import create_attack as create_attack
from captum_lipschitz.training import AdaptiveStrength as AdaptiveStrength
from captum_lipschitz.training import AdversarialTraining as AdversarialTraining
from captum_lipschitz.training import CosineRamp as CosineRamp
from captum_lipschitz.training import HalfHuberSchedule as HalfHuberSchedule
from captum_lipschitz.training import LinearRamp as LinearRamp
from captum_lipschitz.training import LipschitzRegularizer as LipschitzRegularizer
from captum_lipschitz.training import RegularizedModule as RegularizedModule
from captum_lipschitz.training import RegularizedOutput as RegularizedOutput
from captum_lipschitz.training import RegularizerOutput as RegularizerOutput
from captum_lipschitz.training import attach_regularizer as attach_regularizer
from captum_lipschitz.training import expected_penalty as expected_penalty
from captum_lipschitz.training import lipschitz_penalty as lipschitz_penalty
from captum_lipschitz.training import recalibrate_batch_norm as recalibrate_batch_norm

if TYPE_CHECKING:
    from captum_lipschitz.attr import AdversarialAttribution as AdversarialAttribution
    from captum_lipschitz.attr import ContrastiveAdversarialAttribution as ContrastiveAdversarialAttribution
    from captum_lipschitz.attr import LayerAdversarialAttribution as LayerAdversarialAttribution
    from captum_lipschitz.attr import MinimalAdversarialAttribution as MinimalAdversarialAttribution
    from captum_lipschitz.attr import register_with_captum as register_with_captum
    from captum_lipschitz.attr import visualize as visualize
    from captum_lipschitz.metrics import AccuracyRobustnessArea as AccuracyRobustnessArea

__version__ = "1.0.0"

# Names whose modules import Captum or torchmetrics, and with them matplotlib, are loaded at first use.
_LAZY = {
    "AccuracyRobustnessArea": "captum_lipschitz.metrics",
    "AdversarialAttribution": "captum_lipschitz.attr",
    "ContrastiveAdversarialAttribution": "captum_lipschitz.attr",
    "LayerAdversarialAttribution": "captum_lipschitz.attr",
    "MinimalAdversarialAttribution": "captum_lipschitz.attr",
    "register_with_captum": "captum_lipschitz.attr",
    "visualize": "captum_lipschitz.attr",
}

__all__ = [
    "L2",
    "RMSE",
    "AccuracyRobustnessArea",
    "AdaptiveStrength",
    "AdversarialAttribution",
    "AdversarialTraining",
    "AraComparison",
    "AraResult",
    "Attack",
    "AttackResult",
    "BelowChance",
    "BelowChanceAreas",
    "Bounds",
    "ClassArea",
    "ContrastiveAdversarialAttribution",
    "CosineRamp",
    "Criterion",
    "Doubt",
    "EnsembleAttack",
    "FixedSizeAttack",
    "HalfHuberReLU",
    "HalfHuberSchedule",
    "LabelFlips",
    "LayerAdversarialAttribution",
    "LinearRamp",
    "Linf",
    "LipschitzRegularizer",
    "MinimalAdversarialAttribution",
    "MinimumNormAttack",
    "Misclassified",
    "MultilabelResult",
    "Norm",
    "PaperAttack",
    "RadiusCalibration",
    "Reaches",
    "RegularizedModule",
    "RegularizedOutput",
    "RegularizerOutput",
    "accuracy_robustness_area",
    "attach_regularizer",
    "below_chance_areas",
    "compare",
    "create_attack",
    "errors",
    "expected_penalty",
    "fit_temperature",
    "lipschitz_penalty",
    "local_lipschitz",
    "margin_radius",
    "multilabel_robustness_areas",
    "radius_calibration",
    "recalibrate_batch_norm",
    "register_with_captum",
    "replace_activations",
    "visualize",
]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
