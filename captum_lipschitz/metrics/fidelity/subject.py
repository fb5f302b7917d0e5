"""A method and some images, explained once: every measure takes what it needs of them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.geometry import Bounds
from captum_lipschitz.metrics.fidelity.behaviour import behaviour
from captum_lipschitz.metrics.fidelity.curves import insertion_deletion
from captum_lipschitz.metrics.fidelity.infidelity import infidelity
from captum_lipschitz.metrics.fidelity.measures import FIDELITY_MEASURES
from captum_lipschitz.metrics.fidelity.randomisation import parameter_randomisation
from captum_lipschitz.metrics.fidelity.road import road
from captum_lipschitz.metrics.fidelity.sensitivity import max_sensitivity
from captum_lipschitz.metrics.fidelity.settings import FidelitySettings
from captum_lipschitz.metrics.fidelity.stability import stability
from captum_lipschitz.metrics.maps import Explain, Make, attributed, position_maps


@dataclass(frozen=True, kw_only=True)
class Subject:
    """What ``explanation_fidelity`` measures, checked arguments all.

    Attributes:
        model: that is explained.
        outputs: the same, perhaps remembered, for changed images that other methods are measured on too.
        make: the method.
        explain: the method for the model.
        images: (N, ...).
        targets: (N,).
        reference: of ``infidelity``, (N, ...).
        baseline: of the curves, (N, ...), or ``None``.
        settings: counts and sizes.
        bounds: of changed images.
        scale: of each feature.
        magnitude: maps are sums of magnitudes over channels, rather than of signed contributions.
        generator: whose initial seed counts.
    """

    model: Model
    outputs: Model
    make: Make
    explain: Explain
    images: Tensor
    targets: Tensor
    reference: Tensor
    baseline: Tensor | None
    settings: FidelitySettings
    bounds: Bounds | None
    scale: Tensor | float | None
    magnitude: bool
    generator: torch.Generator | None

    @cached_property
    def attributions(self) -> Tensor:
        """The method's answer, as it came."""
        return attributed(self.explain, self.images, self.targets)

    @cached_property
    def maps(self) -> Tensor:
        """One value for each position, which rank them."""
        return position_maps(self.attributions, self.images, magnitude=self.magnitude)

    def measured(self, wanted: Collection[str]) -> dict[str, Tensor]:
        """Those of ``FIDELITY_MEASURES`` that are wanted, each (N,), in its order."""
        groups = {
            self._curves: ("insertion", "deletion"),
            self._infidelity: ("infidelity",),
            self._max_sensitivity: ("max_sensitivity",),
            self._behaviour: ("behaviour_toward", "behaviour_away"),
            self._stability: ("stability",),
            self._road: ("road",),
            self._randomisation: ("parameter_randomisation",),
        }
        found: dict[str, Tensor] = {}
        for take, keys in groups.items():
            if any(key in wanted for key in keys):
                found |= zip(keys, take(), strict=True)
        return {key: found[key] for key in FIDELITY_MEASURES if key in wanted}

    def _curves(self) -> tuple[Tensor, Tensor]:
        curves = insertion_deletion(
            self.model, self.images, self.targets, self.maps, steps=self.settings.steps, baseline=self.baseline
        )
        return curves.insertion_area, curves.deletion_area

    def _infidelity(self) -> tuple[Tensor]:
        values = infidelity(
            self.outputs,
            self.images,
            self.targets,
            self.attributions,
            contributions=not self.magnitude,
            samples=self.settings.infidelity_samples,
            reference=self.reference,
            objective=self.settings.objective,
            generator=self.generator,
        )
        return (values,)

    def _max_sensitivity(self) -> tuple[Tensor]:
        values = max_sensitivity(
            self.explain,
            self.images,
            self.targets,
            samples=self.settings.sensitivity_samples,
            radius=self.settings.sensitivity_radius,
            bounds=self.bounds,
            scale=1.0 if self.scale is None else self.scale,
            attributions=self.attributions,
            generator=self.generator,
        )
        return (values,)

    def _behaviour(self) -> tuple[Tensor, Tensor]:
        moved = behaviour(
            self.model,
            self.images,
            self.targets,
            self.attributions,
            rho=self.settings.rho,
            bounds=self.bounds,
            scale=self.scale,
        )
        return moved.toward, moved.away

    def _stability(self) -> tuple[Tensor]:
        values = stability(
            self.explain,
            self.images,
            self.targets,
            draws=self.settings.stability_draws,
            radius=self.settings.stability_radius,
            magnitude=self.magnitude,
            bounds=self.bounds,
            scale=1.0 if self.scale is None else self.scale,
            attributions=self.attributions,
            generator=self.generator,
        )
        return (values,)

    def _road(self) -> tuple[Tensor]:
        percentages = self.settings.road_percentages
        return (
            road(self.model, self.images, self.targets, self.maps, percentages=percentages, generator=self.generator),
        )

    def _randomisation(self) -> tuple[Tensor]:
        values = parameter_randomisation(
            self.model,
            self.images,
            self.targets,
            make=self.make,
            maps=self.maps,
            magnitude=self.magnitude,
            generator=self.generator,
        )
        return (values,)
