"""Robust training: the penalty, its strength, and ways into a training loop."""

from captum_lipschitz.training.adversarial import AdversarialTraining as AdversarialTraining
from captum_lipschitz.training.attach import AttachedRegularizer as AttachedRegularizer
from captum_lipschitz.training.attach import attach_regularizer as attach_regularizer
from captum_lipschitz.training.attach import uncounted as uncounted
from captum_lipschitz.training.cross_entropy import CrossEntropyReading as CrossEntropyReading
from captum_lipschitz.training.cross_entropy import read_cross_entropy as read_cross_entropy
from captum_lipschitz.training.estimators import expected_penalty as expected_penalty
from captum_lipschitz.training.estimators import mean_penalty as mean_penalty
from captum_lipschitz.training.finetuning import HalfHuberSchedule as HalfHuberSchedule
from captum_lipschitz.training.module import RegularizedModule as RegularizedModule
from captum_lipschitz.training.module import RegularizedOutput as RegularizedOutput
from captum_lipschitz.training.penalty import PenaltyDraws as PenaltyDraws
from captum_lipschitz.training.penalty import Positions as Positions
from captum_lipschitz.training.penalty import draw as draw
from captum_lipschitz.training.penalty import lipschitz_penalty as lipschitz_penalty
from captum_lipschitz.training.recalibration import recalibrate_batch_norm as recalibrate_batch_norm
from captum_lipschitz.training.regularizer import LipschitzRegularizer as LipschitzRegularizer
from captum_lipschitz.training.regularizer import RegularizerOutput as RegularizerOutput
from captum_lipschitz.training.step import LastStep as LastStep
from captum_lipschitz.training.step import StepRegularizer as StepRegularizer
from captum_lipschitz.training.strength import AdaptiveStrength as AdaptiveStrength
from captum_lipschitz.training.strength import CosineRamp as CosineRamp
from captum_lipschitz.training.strength import FixedStrength as FixedStrength
from captum_lipschitz.training.strength import LinearRamp as LinearRamp
from captum_lipschitz.training.strength import StrengthController as StrengthController

__all__ = [
    "AdaptiveStrength",
    "AdversarialTraining",
    "AttachedRegularizer",
    "CosineRamp",
    "CrossEntropyReading",
    "FixedStrength",
    "HalfHuberSchedule",
    "LastStep",
    "LinearRamp",
    "LipschitzRegularizer",
    "PenaltyDraws",
    "Positions",
    "RegularizedModule",
    "RegularizedOutput",
    "RegularizerOutput",
    "StepRegularizer",
    "StrengthController",
    "attach_regularizer",
    "draw",
    "expected_penalty",
    "lipschitz_penalty",
    "mean_penalty",
    "read_cross_entropy",
    "recalibrate_batch_norm",
    "uncounted",
]
