"""What attacks did to an explanation method, one row per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.metrics.area import finite_or_none
from captum_lipschitz.metrics.estimates import Estimate, estimate, paired_difference
from captum_lipschitz.metrics.regions import EnergyOutside
from captum_lipschitz.metrics.similarity import Similarity


@dataclass(frozen=True)
class InvalidationResult:
    """What remained of explanations although attacks changed the decisions they explain; all on the CPU.

    Figures are NaN for images without one: those decided wrongly from the start, and those on which nothing was found.

    Attributes:
        correct: (N,) bool, the clean image is decided rightly.
        changed: (N,) bool, and the attack changed that; figures are of these.
        decisions: (N,) int64, the class decided on the adversarial image; the label where nothing was found.
        same_class: of the label's explanation before the attack with the label's explanation after: does the method go
            on to claim the same evidence for a class that is no longer decided?
        new_class: of the label's explanation before with the new decision's after: does the method tell the decisions
            apart?
        energy: of the attack's perturbation, outside the region that the explanation before calls important.
        distances: (N,), RMSE of the attack; ``inf`` where nothing was found, NaN where the clean image is wrong.
        within_region: (N,), RMSE over the whole image of the attack confined to that region; ``inf`` where nothing was
            found.
        outside_region: (N,), likewise confined to the rest of the image.
    """

    correct: Tensor
    changed: Tensor
    decisions: Tensor
    same_class: Similarity
    new_class: Similarity
    energy: EnergyOutside
    distances: Tensor
    within_region: Tensor
    outside_region: Tensor

    def __len__(self) -> int:
        return len(self.correct)

    def values(self) -> dict[str, Tensor]:
        """Every figure by name, (N,) float64 each, in [-1, 1], NaN where an image has none.

        ``rank_correlation``, ``top_overlap``, ``structural``, ``cosine`` of the label's explanations, and with
        ``new_class_`` before the name of the new decision's; ``outside``, ``at_random``, ``at_centre`` and
        ``placements_as_good`` (``EnergyOutside``); ``strength_within`` and ``strength_outside``, the attack's distance
        over that of the confined one: 0 where confining leaves nothing to be found, 1 where it costs nothing. (Above 1
        where the confined search found a smaller change: all distances are upper bounds.)
        """
        return {
            **self.same_class._asdict(),
            **{f"new_class_{name}": values for name, values in self.new_class._asdict().items()},
            **self.energy._asdict(),
            "strength_within": self.distances / self.within_region,
            "strength_outside": self.distances / self.outside_region,
        }

    def estimates(self, *, generator: torch.Generator | None = None) -> dict[str, Estimate]:
        """Means over images with their 95% intervals: of ``values()``, and of paired differences between them.

        ``changed``: share of the rightly decided images. ``outside_minus_at_random`` and ``outside_minus_at_centre``:
        above 0 where the perturbation avoids what the explanation calls important more than an uninformed region.
        ``within_minus_outside``, of the strengths: below 0 where confining to the region costs more than confining to
        the rest, which is most of the image: compare it with an uninformed explanation's before calling that a merit.

        Args:
            generator: source of the resamples, the same state for each; ``None`` is a fixed seed.

        Returns:
            By name, mean and interval, as ``Estimate``.
        """
        state = None if generator is None else generator.get_state()

        def again() -> torch.Generator | None:
            return None if generator is None or state is None else generator.set_state(state)

        values = self.values()
        changed = self.changed.double().where(self.correct, torch.nan)
        pairs = {
            "outside_minus_at_random": ("outside", "at_random"),
            "outside_minus_at_centre": ("outside", "at_centre"),
            "within_minus_outside": ("strength_within", "strength_outside"),
        }
        found = {name: estimate(one, generator=again()) for name, one in {"changed": changed, **values}.items()}
        for name, (a, b) in pairs.items():
            found[name] = paired_difference(values[a], values[b], generator=again())
        return found

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON's types; what is undefined or infinite is ``None``, ``found_...`` tells these apart."""
        plain: dict[str, Any] = {
            "correct": self.correct.tolist(),
            "changed": self.changed.tolist(),
            "decisions": self.decisions.tolist(),
            "found_within_region": torch.isfinite(self.within_region).tolist(),
            "found_outside_region": torch.isfinite(self.outside_region).tolist(),
            "distances": self.distances.tolist(),
            "within_region": self.within_region.tolist(),
            "outside_region": self.outside_region.tolist(),
            "values": {name: values.tolist() for name, values in self.values().items()},
            "estimates": {name: found.to_dict() for name, found in self.estimates().items()},
        }
        figures: dict[str, Any] = finite_or_none(plain)
        return figures
