"""Attributions in Captum's API: one class per file. Importing this package imports Captum, and so matplotlib."""

from captum_lipschitz.attr.adversarial import AdversarialAttribution as AdversarialAttribution

__all__ = ["AdversarialAttribution"]
