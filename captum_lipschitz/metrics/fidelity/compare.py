"""Several methods on the same images in one call."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidTypeError, UnknownNameError
from captum_lipschitz.geometry import Bounds
from captum_lipschitz.metrics.fidelity.evaluation import explanation_fidelity
from captum_lipschitz.metrics.fidelity.outputs import RememberedModel
from captum_lipschitz.metrics.fidelity.settings import FidelitySettings
from captum_lipschitz.metrics.fidelity.table import FidelityTable
from captum_lipschitz.metrics.maps import Make, check_explain


def compare_explanations(
    model: Model,
    images: Tensor,
    targets: Tensor,
    *,
    methods: Mapping[str, Make],
    compared_with: str,
    contributions: Collection[str] = (),
    without_direction: Collection[str] = (),
    settings: FidelitySettings | None = None,
    bounds: Bounds | tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
    measures: Collection[str] | None = None,
    baseline: Tensor | None = None,
    reference: Tensor | float = 0.0,
    scale: Tensor | float | None = None,
) -> FidelityTable:
    """``explanation_fidelity`` of several methods on the same images: which are more faithful, and can we tell?

    All methods see the same changed images. Differences from one of them are taken image by image, with 95% intervals
    over images; where these hold 0, or there are too few images, the table says so.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, (N, ...), within the bounds.
        targets: the classes that are explained, (N,).
        methods: by name, ``make(model)`` that gives ``explain(images, targets)``.
        compared_with: name of the method that the others are compared with.
        contributions: names of those whose attributions are contributions to the output (InputXGradient,
            IntegratedGradients, Occlusion, LIME, Grad-CAM).
        without_direction: names of those whose attributions have no signs to move along (absolute gradients).
        settings: counts and sizes; ``None`` is ``FidelitySettings()``.
        bounds: that changed images stay in.
        generator: its initial seed is what counts; it is not moved on.
        measures: keys of those to take; ``None`` for all that can be.
        baseline: of insertion and deletion; ``None`` is each image blurred, and for rows, (N, F), the mean of these.
        reference: value of an absent feature for ``infidelity``.
        scale: positive, broadcasts to one image: radii and ``rho`` are in units of it.

    Returns:
        A ``FidelityTable``.

    Raises:
        InvalidInputError, InvalidTypeError, ModelOutputError: for what cannot be used.
        UnknownNameError: ``compared_with``, ``contributions`` or ``without_direction`` name no method.

    Example:
        >>> from captum_lipschitz.metrics.fidelity import random_explanation
        >>> model = torch.nn.Linear(6, 3)
        >>> weights = lambda m: lambda rows, targets: m.weight[targets]
        >>> table = compare_explanations(
        ...     model, torch.rand(12, 6), torch.arange(12) % 3, compared_with="random", measures=["infidelity"],
        ...     methods={"gradient": weights, "random": lambda m: random_explanation()},
        ... )
        >>> table.verdict("gradient", "infidelity")
        'better'
    """
    if not isinstance(methods, Mapping) or not methods:
        raise InvalidTypeError(f"methods: expected functions of a model by name, got {methods!r}")
    for name, make in methods.items():
        check_explain(make, f"methods[{name!r}]")
    for argument, names in (
        ("compared_with", [compared_with]),
        ("contributions", contributions),
        ("without_direction", without_direction),
    ):
        unknown = sorted(set(names) - set(methods))
        if unknown:
            raise UnknownNameError(f"{argument}: expected some of {list(methods)}, got {unknown}")
    if baseline is None and isinstance(images, Tensor) and images.dim() == 2:
        baseline = images.detach().mean(0)
    remembered = RememberedModel(model)
    found = {
        name: explanation_fidelity(
            model,
            images,
            targets,
            make=make,
            settings=settings,
            bounds=bounds,
            generator=generator,
            measures=measures,
            direction_known=name not in without_direction,
            contributions=name in contributions,
            baseline=baseline,
            reference=reference,
            scale=scale,
            remembered=remembered,
        )
        for name, make in methods.items()
    }
    return FidelityTable(found, compared_with)
