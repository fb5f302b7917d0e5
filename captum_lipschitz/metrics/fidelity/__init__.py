"""Are explanations faithful to the model? Measures of others' and of our own, for any method, on the same images."""

from captum_lipschitz.metrics.fidelity.behaviour import Behaviour as Behaviour
from captum_lipschitz.metrics.fidelity.behaviour import behaviour as behaviour
from captum_lipschitz.metrics.fidelity.compare import compare_explanations as compare_explanations
from captum_lipschitz.metrics.fidelity.curves import Curves as Curves
from captum_lipschitz.metrics.fidelity.curves import insertion_deletion as insertion_deletion
from captum_lipschitz.metrics.fidelity.evaluation import FidelityValues as FidelityValues
from captum_lipschitz.metrics.fidelity.evaluation import explanation_fidelity as explanation_fidelity
from captum_lipschitz.metrics.fidelity.infidelity import infidelity as infidelity
from captum_lipschitz.metrics.fidelity.measures import FIDELITY_MEASURES as FIDELITY_MEASURES
from captum_lipschitz.metrics.fidelity.measures import FidelityMeasure as FidelityMeasure
from captum_lipschitz.metrics.fidelity.outputs import RememberedModel as RememberedModel
from captum_lipschitz.metrics.fidelity.random_map import random_explanation as random_explanation
from captum_lipschitz.metrics.fidelity.randomisation import parameter_randomisation as parameter_randomisation
from captum_lipschitz.metrics.fidelity.road import road as road
from captum_lipschitz.metrics.fidelity.sensitivity import max_sensitivity as max_sensitivity
from captum_lipschitz.metrics.fidelity.settings import FidelitySettings as FidelitySettings
from captum_lipschitz.metrics.fidelity.stability import stability as stability
from captum_lipschitz.metrics.fidelity.table import FidelityTable as FidelityTable
from captum_lipschitz.metrics.maps import Make as Make

__all__ = [
    "FIDELITY_MEASURES",
    "Behaviour",
    "Curves",
    "FidelityMeasure",
    "FidelitySettings",
    "FidelityTable",
    "FidelityValues",
    "Make",
    "RememberedModel",
    "behaviour",
    "compare_explanations",
    "explanation_fidelity",
    "infidelity",
    "insertion_deletion",
    "max_sensitivity",
    "parameter_randomisation",
    "random_explanation",
    "road",
    "stability",
]
