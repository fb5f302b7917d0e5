"""Attributions in Captum's API: one class per file. Importing this package imports Captum, and so matplotlib."""

from captum_lipschitz.attr.adversarial import AdversarialAttribution as AdversarialAttribution
from captum_lipschitz.attr.contrastive import ContrastiveAdversarialAttribution as ContrastiveAdversarialAttribution
from captum_lipschitz.attr.layer import LayerAdversarialAttribution as LayerAdversarialAttribution
from captum_lipschitz.attr.minimal import MinimalAdversarialAttribution as MinimalAdversarialAttribution
from captum_lipschitz.attr.registration import CaptumRegistration as CaptumRegistration
from captum_lipschitz.attr.registration import register_with_captum as register_with_captum

__all__ = [
    "AdversarialAttribution",
    "CaptumRegistration",
    "ContrastiveAdversarialAttribution",
    "LayerAdversarialAttribution",
    "MinimalAdversarialAttribution",
    "register_with_captum",
]
