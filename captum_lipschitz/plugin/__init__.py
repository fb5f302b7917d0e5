"""Components by name, from this library and from installed plugins. Nothing is loaded before the first look-up."""

from captum_lipschitz.plugin.manager import PluginRecord as PluginRecord
from captum_lipschitz.plugin.needing import needing as needing
from captum_lipschitz.plugin.registry import components as components
from captum_lipschitz.plugin.registry import create as create
from captum_lipschitz.plugin.registry import create_attack as create_attack
from captum_lipschitz.plugin.registry import get as get
from captum_lipschitz.plugin.registry import plugins as plugins
from captum_lipschitz.plugin.spec import API_VERSION as API_VERSION
from captum_lipschitz.plugin.spec import AttackLike as AttackLike
from captum_lipschitz.plugin.spec import AttributionLike as AttributionLike
from captum_lipschitz.plugin.spec import ComponentSpec as ComponentSpec
from captum_lipschitz.plugin.spec import MetricLike as MetricLike
from captum_lipschitz.plugin.spec import Removable as Removable
from captum_lipschitz.plugin.spec import TrainingHookLike as TrainingHookLike
from captum_lipschitz.plugin.spec import hookimpl as hookimpl

__all__ = [
    "API_VERSION",
    "AttackLike",
    "AttributionLike",
    "ComponentSpec",
    "MetricLike",
    "PluginRecord",
    "Removable",
    "TrainingHookLike",
    "components",
    "create",
    "create_attack",
    "get",
    "hookimpl",
    "needing",
    "plugins",
]
