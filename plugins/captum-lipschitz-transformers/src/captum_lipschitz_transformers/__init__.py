"""Captum_lipschitz in Hugging Face's Trainer: regularised training, and the Accuracy-Robustness Area in evaluations.

Importing this package imports neither torch nor transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_lipschitz_transformers.ara import AraCallback as AraCallback
    from captum_lipschitz_transformers.attach import RegularizedTrainer as RegularizedTrainer
    from captum_lipschitz_transformers.attach import regularize_trainer as regularize_trainer
    from captum_lipschitz_transformers.callback import LipschitzTrainerCallback as LipschitzTrainerCallback
    from captum_lipschitz_transformers.logits import LogitsNetwork as LogitsNetwork
    from captum_lipschitz_transformers.loss import RegularizedLoss as RegularizedLoss
    from captum_lipschitz_transformers.trainer import LipschitzTrainer as LipschitzTrainer
    from captum_lipschitz_transformers.trainer import LipschitzTrainerMixin as LipschitzTrainerMixin

_HOMES = {
    "AraCallback": "ara",
    "LipschitzTrainer": "trainer",
    "LipschitzTrainerCallback": "callback",
    "LipschitzTrainerMixin": "trainer",
    "LogitsNetwork": "logits",
    "RegularizedLoss": "loss",
    "RegularizedTrainer": "attach",
    "regularize_trainer": "attach",
}

__all__ = [
    "AraCallback",
    "LipschitzTrainer",
    "LipschitzTrainerCallback",
    "LipschitzTrainerMixin",
    "LogitsNetwork",
    "RegularizedLoss",
    "RegularizedTrainer",
    "regularize_trainer",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
