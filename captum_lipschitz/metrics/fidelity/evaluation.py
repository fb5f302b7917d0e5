"""One explanation method on a batch of images: all measures that can be taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import RMSE, Bounds
from captum_lipschitz.metrics.fidelity.draws import seed_of
from captum_lipschitz.metrics.fidelity.measures import FIDELITY_MEASURES
from captum_lipschitz.metrics.fidelity.optional import left_out_of_quantus
from captum_lipschitz.metrics.fidelity.outputs import RememberedModel, broadcast, checked, logits_of
from captum_lipschitz.metrics.fidelity.settings import FidelitySettings
from captum_lipschitz.metrics.fidelity.subject import Subject
from captum_lipschitz.metrics.maps import Make, check_explain


@dataclass(frozen=True)
class FidelityValues:
    """What was measured of one method.

    Attributes:
        values: by measure, (N,) float64 on the CPU; NaN where an image has none.
        left_out: measures that could not be taken, to why.
    """

    values: dict[str, Tensor]
    left_out: dict[str, str]

    @classmethod
    def joined(cls, parts: Sequence[FidelityValues]) -> FidelityValues:
        """The values of several chunks of images, one after the other; measures left out of any are left out.

        Args:
            parts: of the same measures, in the images' order; at least one.

        Returns:
            All images' values.

        Raises:
            InvalidInputError: no parts.

        Example:
            >>> part = FidelityValues({"insertion": torch.ones(2)}, {})
            >>> FidelityValues.joined([part, part]).values["insertion"].shape
            torch.Size([4])
        """
        if not parts:
            raise InvalidInputError("parts: expected at least one, got none")
        left_out = {key: why for part in parts for key, why in part.left_out.items()}
        kept = [key for key in parts[0].values if key not in left_out]
        return cls({key: torch.cat([part.values[key] for part in parts]) for key in kept}, left_out)


def explanation_fidelity(
    model: Model,
    images: Tensor,
    targets: Tensor,
    *,
    make: Make,
    settings: FidelitySettings | None = None,
    bounds: Bounds | tuple[float, float] | None = None,
    generator: torch.Generator | None = None,
    measures: Collection[str] | None = None,
    direction_known: bool = True,
    contributions: bool = False,
    baseline: Tensor | None = None,
    reference: Tensor | float = 0.0,
    scale: Tensor | float | None = None,
    remembered: RememberedModel | None = None,
) -> FidelityValues:
    """Everything that ``FIDELITY_MEASURES`` names, of one method on some images.

    An image's values do not depend on its neighbours, its place or the chunk it comes in, up to the rounding that
    another batch shape brings: its random draws come from a hash of its values.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, (N, ...), within the bounds.
        targets: the classes that are explained, (N,).
        make: the method, ``make(model)`` gives ``explain(images, targets)``.
        settings: counts and sizes; ``None`` is ``FidelitySettings()``.
        bounds: that changed images stay in; ``None`` for none.
        generator: its initial seed is what counts; it is not moved on.
        measures: keys of those to take; ``None`` for all that can be.
        direction_known: the attributions have signs to move along; otherwise ``behaviour_toward`` and
            ``behaviour_away`` are left out.
        contributions: attributions are contributions to the output relative to ``reference`` (InputXGradient,
            IntegratedGradients, Occlusion, LIME, Grad-CAM): they are ranked by their signed sums over channels.
            Otherwise they are sensitivities or directions (gradients, adversarial changes): ranked by magnitude.
        baseline: of insertion and deletion, broadcasts to the images; ``None`` is each image blurred. Rows, (N, F),
            have to bring one: the data's mean.
        reference: value of an absent feature for ``infidelity``, broadcasts to the images.
        scale: positive, broadcasts to one image: radii and ``rho`` are in units of it. ``None`` is 1.
        remembered: ``RememberedModel(model)``, kept between calls: removed blocks, half of all forward passes, are
            the same for all methods on the same images, and then run once. ``None`` keeps nothing.

    Returns:
        ``FidelityValues``; every measure asked for is in ``values`` or in ``left_out``.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments, or attributions, that cannot be used.
        ModelOutputError: for a model without finite logits.

    Example:
        >>> from captum_lipschitz.metrics.fidelity import random_explanation
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> images, targets = torch.rand(4, 1, 8, 8), torch.tensor([0, 1, 2, 0])
        >>> found = explanation_fidelity(
        ...     model, images, targets, make=lambda _: random_explanation(), measures=["insertion", "deletion"]
        ... )
        >>> sorted(found.values)
        ['deletion', 'insertion']
    """
    images, targets = checked(images, targets, bounds)
    check_explain(make, "make")
    wanted = _wanted(measures)
    use = FidelitySettings() if settings is None else settings
    if not isinstance(use, FidelitySettings):
        raise InvalidTypeError(f"settings: expected FidelitySettings or None, got {type(use).__name__}")
    if images.dim() == 2 and baseline is None and wanted & {"insertion", "deletion"}:
        raise InvalidInputError("baseline: expected the data's mean for rows of shape (N, F), got None")
    if remembered is not None and remembered.model is not model:
        raise InvalidInputError("remembered: expected a RememberedModel of this model, got one of another")
    RMSE(scale).check(images)
    seed_of(generator)
    left_out = {key: why for key, why in left_out_of_quantus(model, images).items() if key in wanted}
    if not direction_known:
        unsigned = "the explanation has no signs to move along"
        left_out |= {key: unsigned for key in ("behaviour_toward", "behaviour_away") if key in wanted}
    every = [
        images,
        targets,
        broadcast(reference, images, "reference"),
        images if baseline is None else broadcast(baseline, images, "baseline"),
    ]
    parts = []
    outputs = model if remembered is None else remembered
    with settled(), no_trace(model, images):
        logits_of(outputs, images[:1], targets)  # tells of a model, or targets, that will not do before the work begins
        explain = make(model)
        for chunk in zip(*(values.split(use.images_at_once) for values in every), strict=True):
            subject = Subject(
                model=model,
                outputs=outputs,
                make=make,
                explain=explain,
                images=chunk[0],
                targets=chunk[1],
                reference=chunk[2],
                baseline=None if baseline is None else chunk[3],
                settings=use,
                bounds=Bounds.of(bounds),
                scale=scale,
                magnitude=not contributions,
                generator=generator,
            )
            parts.append(FidelityValues(subject.measured(wanted - set(left_out)), left_out))
    return FidelityValues.joined(parts)


def _wanted(measures: Collection[str] | None) -> set[str]:
    if measures is None:
        return set(FIDELITY_MEASURES)
    if isinstance(measures, str) or not all(isinstance(key, str) for key in measures):
        raise InvalidTypeError(f"measures: expected keys of measures, got {measures!r}")
    unknown = sorted(set(measures) - set(FIDELITY_MEASURES))
    if unknown or not measures:
        raise InvalidInputError(f"measures: expected some of {list(FIDELITY_MEASURES)}, got {unknown or 'none'}")
    return set(measures)
