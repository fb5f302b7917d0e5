"""captum_lipschitz in timm: its networks with half-Huber activations, its training tasks with the penalty.

Importing this package imports neither torch nor timm.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_lipschitz_timm.activations import Conversion as Conversion
    from captum_lipschitz_timm.activations import create_robust_model as create_robust_model
    from captum_lipschitz_timm.activations import with_half_huber as with_half_huber
    from captum_lipschitz_timm.names import register as register
    from captum_lipschitz_timm.task import LipschitzClassificationTask as LipschitzClassificationTask
    from captum_lipschitz_timm.task import LipschitzTask as LipschitzTask
    from captum_lipschitz_timm.task import RegularizedTask as RegularizedTask
    from captum_lipschitz_timm.task import regularize_task as regularize_task

_HOMES = {
    "Conversion": "captum_lipschitz_timm.activations",
    "LipschitzClassificationTask": "captum_lipschitz_timm.task",
    "LipschitzTask": "captum_lipschitz_timm.task",
    "RegularizedTask": "captum_lipschitz_timm.task",
    "create_robust_model": "captum_lipschitz_timm.activations",
    "register": "captum_lipschitz_timm.names",
    "regularize_task": "captum_lipschitz_timm.task",
    "with_half_huber": "captum_lipschitz_timm.activations",
}

__all__ = [
    "Conversion",
    "LipschitzClassificationTask",
    "LipschitzTask",
    "RegularizedTask",
    "create_robust_model",
    "register",
    "regularize_task",
    "with_half_huber",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
