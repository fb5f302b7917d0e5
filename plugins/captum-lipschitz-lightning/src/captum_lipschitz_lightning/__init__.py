"""Captum_lipschitz in Lightning: callbacks that regularise a module's training and measure its robustness.

Importing this package imports neither torch nor Lightning: Lightning loads it for every ``Trainer``, wanted or not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from captum_lipschitz_lightning.ara import AraCallback as AraCallback
    from captum_lipschitz_lightning.fabric import FabricLipschitz as FabricLipschitz
    from captum_lipschitz_lightning.lipschitz import LipschitzCallback as LipschitzCallback
    from captum_lipschitz_lightning.step import RegularizedStep as RegularizedStep

_HOMES = {
    "AraCallback": "captum_lipschitz_lightning.ara",
    "FabricLipschitz": "captum_lipschitz_lightning.fabric",
    "LipschitzCallback": "captum_lipschitz_lightning.lipschitz",
    "RegularizedStep": "captum_lipschitz_lightning.step",
}

__all__ = ["AraCallback", "FabricLipschitz", "LipschitzCallback", "RegularizedStep"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
