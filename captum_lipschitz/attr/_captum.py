"""The places in Captum 0.9 that decide what an activation is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import captum
import captum.attr
from torch import nn

from captum_lipschitz.errors import MissingDependencyError


class Places(NamedTuple):
    """Classes, tables and helpers of Captum, by what they are for.

    Attributes:
        deep_lift: the base of every DeepLift; ``_register_hooks`` puts a module's rule on its backward pass.
        rules: DeepLift's rule for each exact type.
        lrp: the base of both LRPs; ``_check_and_attach_rules`` looks up the modules in ``layers``.
        passing: the exact types through which LRP passes relevance unchanged.
        clipping: the base of GuidedBackprop and Deconvolution; ``_register_hooks`` looks for ``nn.ReLU``.
        exported: ``captum.attr.__all__``.
    """

    deep_lift: type
    rules: dict[type, Callable[..., Any]]
    lrp: type
    passing: list[type]
    clipping: type
    exported: list[str]


def find_places() -> Places:
    """Look the places up.

    Raises:
        MissingDependencyError: this Captum does not have them; the message says which are missing.
    """
    try:
        from captum.attr._core.deep_lift import SUPPORTED_NON_LINEAR, DeepLift
        from captum.attr._core.guided_backprop_deconvnet import ModifiedReluGradientAttribution
        from captum.attr._core.lrp import LRP, SUPPORTED_NON_LINEAR_LAYERS
    except ImportError as error:
        raise _unsupported(str(error)) from error
    exported = getattr(captum.attr, "__all__", None)
    methods = {
        DeepLift: ("_register_hooks", "_can_register_hook", "_forward_pre_hook", "_forward_hook", "_backward_hook"),
        LRP: ("_check_and_attach_rules",),
        ModifiedReluGradientAttribution: ("_register_hooks", "_backward_hook"),
    }
    missing = [
        f"{owner.__name__}.{name}" for owner, names in methods.items() for name in names if name not in vars(owner)
    ]
    if not _has_relu(SUPPORTED_NON_LINEAR, dict):
        missing.append("a dict SUPPORTED_NON_LINEAR with nn.ReLU")
    if not _has_relu(SUPPORTED_NON_LINEAR_LAYERS, list):
        missing.append("a list SUPPORTED_NON_LINEAR_LAYERS with nn.ReLU")
    if not isinstance(exported, list):
        missing.append("a list captum.attr.__all__")
    if missing or not isinstance(exported, list):
        raise _unsupported(f"there is not {', nor '.join(missing)}")
    return Places(
        deep_lift=DeepLift,
        rules=SUPPORTED_NON_LINEAR,
        lrp=LRP,
        passing=SUPPORTED_NON_LINEAR_LAYERS,
        clipping=ModifiedReluGradientAttribution,
        exported=exported,
    )


def _has_relu(table: object, kind: type) -> bool:
    return isinstance(table, kind) and nn.ReLU in table  # type: ignore[operator]


def _unsupported(reason: str) -> MissingDependencyError:
    return MissingDependencyError(
        f"register_with_captum: expected Captum's tables of activations where Captum 0.9 has them, got Captum "
        f'{captum.__version__}: {reason}. Nothing was changed. A version that works: pip install "captum==0.9.*"'
    )
