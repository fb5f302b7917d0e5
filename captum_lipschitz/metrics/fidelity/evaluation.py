"""One explanation method on a batch of images: all measures that can be taken."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lipschitz._model import no_trace
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import RMSE, Bounds
from captum_lipschitz.metrics.fidelity.behaviour import behaviour
from captum_lipschitz.metrics.fidelity.curves import insertion_deletion
from captum_lipschitz.metrics.fidelity.infidelity import infidelity
from captum_lipschitz.metrics.fidelity.measures import FIDELITY_MEASURES
from captum_lipschitz.metrics.fidelity.optional import left_out_of_quantus
from captum_lipschitz.metrics.fidelity.outputs import broadcast, checked
from captum_lipschitz.metrics.fidelity.randomisation import parameter_randomisation
from captum_lipschitz.metrics.fidelity.road import road
from captum_lipschitz.metrics.fidelity.sensitivity import max_sensitivity
from captum_lipschitz.metrics.fidelity.settings import FidelitySettings
from captum_lipschitz.metrics.fidelity.stability import stability
from captum_lipschitz.metrics.maps import Make, attributed, check_explain, position_maps


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
    settings = FidelitySettings() if settings is None else settings
    if not isinstance(settings, FidelitySettings):
        raise InvalidTypeError(f"settings: expected FidelitySettings or None, got {type(settings).__name__}")
    if images.dim() == 2 and baseline is None and wanted & {"insertion", "deletion"}:
        raise InvalidInputError("baseline: expected the data's mean for rows of shape (N, F), got None")
    RMSE(scale).check(images)
    left_out = {key: why for key, why in left_out_of_quantus(model, images).items() if key in wanted}
    if not direction_known:
        unsigned = "the explanation has no signs to move along"
        left_out |= {key: unsigned for key in ("behaviour_toward", "behaviour_away") if key in wanted}
    subject = _Subject(model, make, settings, Bounds.of(bounds), generator, scale, magnitude=not contributions)
    start = None if baseline is None else broadcast(baseline, images, "baseline")
    absent = broadcast(reference, images, "reference")
    parts = []
    with no_trace(model, images):
        for rows in torch.arange(len(images), device=images.device).split(settings.images_at_once):
            part = subject.measured(
                images[rows],
                targets[rows],
                wanted - set(left_out),
                None if start is None else start[rows],
                absent[rows],
            )
            parts.append(FidelityValues(part, left_out))
    return FidelityValues.joined(parts)


@dataclass(frozen=True)
class _Subject:
    """A method and how it is measured."""

    model: Model
    make: Make
    settings: FidelitySettings
    bounds: Bounds | None
    generator: torch.Generator | None
    scale: Tensor | float | None
    magnitude: bool

    def measured(
        self, images: Tensor, targets: Tensor, wanted: set[str], baseline: Tensor | None, reference: Tensor
    ) -> dict[str, Tensor]:
        explain, use = self.make(self.model), self.settings
        attributions = attributed(explain, images, targets)
        maps = position_maps(attributions, images, magnitude=self.magnitude)
        scale = 1.0 if self.scale is None else self.scale
        found: dict[str, Tensor] = {}
        if wanted & {"insertion", "deletion"}:
            curves = insertion_deletion(self.model, images, targets, maps, steps=use.steps, baseline=baseline)
            found |= {"insertion": curves.insertion_area, "deletion": curves.deletion_area}
        if "infidelity" in wanted:
            found["infidelity"] = infidelity(
                self.model, images, targets, attributions, contributions=not self.magnitude, reference=reference,
                samples=use.infidelity_samples, objective=use.objective, generator=self.generator,
            )  # fmt: skip
        if "max_sensitivity" in wanted:
            found["max_sensitivity"] = max_sensitivity(
                explain, images, targets, attributions=attributions, samples=use.sensitivity_samples,
                radius=use.sensitivity_radius, bounds=self.bounds, scale=scale, generator=self.generator,
            )  # fmt: skip
        if wanted & {"behaviour_toward", "behaviour_away"}:
            moved = behaviour(
                self.model, images, targets, attributions, rho=use.rho, bounds=self.bounds, scale=self.scale
            )
            found |= {"behaviour_toward": moved.toward, "behaviour_away": moved.away}
        if "stability" in wanted:
            found["stability"] = stability(
                explain, images, targets, attributions=attributions, draws=use.stability_draws,
                radius=use.stability_radius, magnitude=self.magnitude, bounds=self.bounds, scale=scale,
                generator=self.generator,
            )  # fmt: skip
        if "road" in wanted:
            found["road"] = road(
                self.model, images, targets, maps, percentages=use.road_percentages, generator=self.generator
            )
        if "parameter_randomisation" in wanted:
            found["parameter_randomisation"] = parameter_randomisation(
                self.model, images, targets, make=self.make, maps=maps, magnitude=self.magnitude,
                generator=self.generator,
            )  # fmt: skip
        return {key: found[key] for key in FIDELITY_MEASURES if key in wanted}


def _wanted(measures: Collection[str] | None) -> set[str]:
    if measures is None:
        return set(FIDELITY_MEASURES)
    if isinstance(measures, str) or not all(isinstance(key, str) for key in measures):
        raise InvalidTypeError(f"measures: expected keys of measures, got {measures!r}")
    unknown = sorted(set(measures) - set(FIDELITY_MEASURES))
    if unknown or not measures:
        raise InvalidInputError(f"measures: expected some of {list(FIDELITY_MEASURES)}, got {unknown or 'none'}")
    return set(measures)
