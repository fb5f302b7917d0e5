"""The library's own components, brought by the hooks that any plugin uses."""

from __future__ import annotations

import functools
import inspect
from typing import TYPE_CHECKING, Any

from captum_lipschitz.attacks import MinimumNormAttack, PaperAttack
from captum_lipschitz.plugin.spec import ComponentSpec, hookimpl

if TYPE_CHECKING:
    from collections.abc import Callable

    from captum_lipschitz.attr import (
        AdversarialAttribution,
        ContrastiveAdversarialAttribution,
        MinimalAdversarialAttribution,
    )
    from captum_lipschitz.plugin.spec import MetricLike, TrainingHookLike
    from captum_lipschitz.training import StrengthController

_PAPER = "arXiv 1906.02896"


@hookimpl
def captum_lipschitz_attacks() -> list[ComponentSpec]:
    """Our attacks."""
    return [
        ComponentSpec(
            "minimum_norm", "attack", MinimumNormAttack, "smallest perturbation by boundary projections", _PAPER
        ),
        ComponentSpec("paper", "attack", PaperAttack, "the paper's attack, the reference for others", _PAPER),
    ]


@hookimpl
def captum_lipschitz_attributions() -> list[ComponentSpec]:
    """Our attribution methods."""
    return [
        ComponentSpec("adversarial", "attribution", _adversarial, "adversarial explanations of the paper", _PAPER),
        ComponentSpec("contrastive", "attribution", _contrastive, "the same, one class rather than another", _PAPER),
        ComponentSpec("minimal", "attribution", _minimal, "the smallest change that alters the decision", _PAPER),
    ]


@hookimpl
def captum_lipschitz_metrics() -> list[ComponentSpec]:
    """Our metrics."""
    return [ComponentSpec("ara", "metric", _ara, "Accuracy-Robustness Area", _PAPER)]


@hookimpl
def captum_lipschitz_training_hooks() -> list[ComponentSpec]:
    """Our training hooks."""
    return [ComponentSpec("lipschitz", "training_hook", _lipschitz, "Lipschitz penalty added to each backward", _PAPER)]


def _adversarial(forward_func: Callable[..., Any]) -> AdversarialAttribution:
    """The adversarial attribution of a model."""
    from captum_lipschitz.attr import AdversarialAttribution  # imports Captum, and so matplotlib

    return AdversarialAttribution(forward_func)


def _contrastive(forward_func: Callable[..., Any]) -> ContrastiveAdversarialAttribution:
    """The contrast of two classes."""
    from captum_lipschitz.attr import ContrastiveAdversarialAttribution

    return ContrastiveAdversarialAttribution(forward_func)


def _minimal(forward_func: Callable[..., Any]) -> MinimalAdversarialAttribution:
    """The counterfactuals of a model."""
    from captum_lipschitz.attr import MinimalAdversarialAttribution

    return MinimalAdversarialAttribution(forward_func)


def _ara(**settings: Any) -> MetricLike:
    """``accuracy_robustness_area`` with other defaults; a setting it does not know is refused at once."""
    from captum_lipschitz.metrics import accuracy_robustness_area

    inspect.signature(accuracy_robustness_area).bind_partial(**settings)
    return functools.partial(accuracy_robustness_area, **settings)


def _lipschitz(*, strength: float | StrengthController, **settings: Any) -> TrainingHookLike:
    """Attaches ``LipschitzRegularizer(strength=..., **settings)`` to a model."""
    from captum_lipschitz.training import LipschitzRegularizer, attach_regularizer

    regularizer = LipschitzRegularizer(strength=strength, **settings)
    return functools.partial(attach_regularizer, regularizer=regularizer)
