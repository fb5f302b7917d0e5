"""Attributions in Captum's API: one class per file. Importing this package imports Captum, and so matplotlib."""

from captum_lipschitz.attr.adversarial import AdversarialAttribution as AdversarialAttribution
from captum_lipschitz.attr.contrastive import ContrastiveAdversarialAttribution as ContrastiveAdversarialAttribution
from captum_lipschitz.attr.layer import LayerAdversarialAttribution as LayerAdversarialAttribution
from captum_lipschitz.attr.minimal import MinimalAdversarialAttribution as MinimalAdversarialAttribution

__all__ = [
    "AdversarialAttribution",
    "ContrastiveAdversarialAttribution",
    "LayerAdversarialAttribution",
    "MinimalAdversarialAttribution",
]
