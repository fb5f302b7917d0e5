"""Captum_lipschitz in MLflow: an evaluator that logs how far a model's accuracy holds as its inputs are perturbed.

Importing this package imports neither torch nor MLflow: MLflow loads its evaluator in every process that evaluates.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_lipschitz_mlflow.evaluator import AraEvaluator as AraEvaluator
    from captum_lipschitz_mlflow.measure import measure_ara as measure_ara
    from captum_lipschitz_mlflow.record import log_ara as log_ara

_HOMES = {
    "AraEvaluator": "captum_lipschitz_mlflow.evaluator",
    "log_ara": "captum_lipschitz_mlflow.record",
    "measure_ara": "captum_lipschitz_mlflow.measure",
}

__all__ = ["AraEvaluator", "log_ara", "measure_ara"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
