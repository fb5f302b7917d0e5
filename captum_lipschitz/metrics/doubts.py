"""A doubt about a measured area, and the sentences: pure functions from figures to doubts, none or some."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from captum_lipschitz.metrics import area as _area

GRAVITY = ("wrong", "loose", "note")

_FALL = 0.02  # fall of the distances with more effort, in geometric mean, that is worth saying
_COARSE_SHARE = 0.5  # share of images whose logits are coarse that is worth saying


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


def train_mode(layers: int) -> list[Doubt]:
    """Of a model that came in train mode, with so many layers for which that matters."""
    if not layers:
        return []
    return [
        Doubt(
            "train_mode",
            "note",
            f"The model came in train mode, with {layers} BatchNorm or dropout layers; it was measured in evaluation "
            "mode.",
            "Nothing to do if that is how it will be used; call model.eval() first to say so.",
            {"layers": float(layers)},
        )
    ]


def random_output(change: float, tolerance: float) -> list[Doubt]:
    """Of logits that change by so much of their spread between two runs."""
    if change <= tolerance:
        return []
    return [
        Doubt(
            "random_output",
            "wrong",
            f"Two runs of the same images differ by {change:.1e} of the logits' spread: the output is random, and a "
            "distance is that of one draw.",
            "Call eval() on the modules behind the function; for a model random on purpose, measure the mean logits "
            "over many runs with fixed draws.",
            {"relative_change": change},
        )
    ]


def neighbours_matter(change: float, tolerance: float) -> list[Doubt]:
    """Of logits that change by so much of their spread with the other images of the batch."""
    if change <= tolerance:
        return []
    return [
        Doubt(
            "neighbours_matter",
            "wrong",
            f"An image's logits change by {change:.1e} of their spread with the other images in the batch: a distance "
            "belongs to the batch, not to the image.",
            "Call eval() on the modules behind the function (BatchNorm in train mode does this).",
            {"relative_change": change},
        )
    ]


def probabilities(images: int, *, decides: bool) -> list[Doubt]:
    """Of so many images whose outputs are probabilities; ``decides`` where the criterion only compares outputs."""
    if not images:
        return []
    effect = "gradients vanish where the model is confident" if decides else "the criterion means another thing"
    return [
        Doubt(
            "probabilities",
            "loose" if decides else "wrong",
            f"The outputs of all {images} images are probabilities, not logits: {effect}.",
            "Leave the last softmax or sigmoid out of the model (log-softmax is fine).",
            {"images": float(images)},
        )
    ]


def undefined_gradients(images: int, of: int) -> list[Doubt]:
    """Of gradients that are not finite at so many images."""
    if not images:
        return []
    return [
        Doubt(
            "undefined_gradients",
            "loose",
            f"The gradient is not finite at {images} of {of} images, and no attack can follow it.",
            "Look for sqrt, log or a division at 0 in the model.",
            {"images": float(images), "share": images / of},
        )
    ]


def zero_gradients(images: int, of: int) -> list[Doubt]:
    """Of gradients that are zero, or as good as, at so many images."""
    if not images:
        return []
    return [
        Doubt(
            "zero_gradients",
            "loose",
            f"The gradient is zero, exactly or as good as, at {images} of {of} images, and a gradient attack starts "
            "blind there.",
            "Replace rounding, thresholds or saturated layers by smooth ones for the attack (BPDA), or use an attack "
            "that needs no gradient.",
            {"images": float(images), "share": images / of},
        )
    ]


def coarse_logits(share: float) -> list[Doubt]:
    """Of logits rounded more coarsely than the decision, at such a share of the images."""
    if share <= _COARSE_SHARE:
        return []
    return [
        Doubt(
            "coarse_logits",
            "note",
            f"At {share:.0%} of the images one rounding step of the logits is over 1% of what has to change.",
            "Measure in float32 or float64.",
            {"share": share},
        )
    ]


def blind_attack_wins(distances: Tensor, blind: Tensor) -> list[Doubt]:
    """Of distances, (N,), beside those along straight lines chosen without the image's gradient, (N,)."""
    beaten = blind < distances
    count = int(beaten.sum())
    if not count:
        return []
    ratio = float((blind / distances)[beaten].min())
    return [
        Doubt(
            "blind_attack_wins",
            "loose",
            f"At {count} of {len(distances)} images a straight line that knows nothing of the image's gradient "
            f"(random, toward another image, or along another's gradient) needs less than the attack, down to "
            f"{ratio:.2f} of its distance.",
            "Suspect gradient masking: add an attack that needs no gradient and take the smaller distances.",
            {"images": float(count), "share": count / len(distances), "smallest_ratio": ratio},
        )
    ]


def more_effort_helps(distances: Tensor, smaller: Tensor, chance_accuracy: float) -> list[Doubt]:
    """Of distances, (N,), beside those with more effort, (N,); solved images are among them, with 0."""
    new = int((torch.isinf(distances) & torch.isfinite(smaller)).sum())
    both = torch.isfinite(distances) & (distances > 0)
    mean = float((smaller / distances)[both].log().mean().exp()) if bool(both.any()) else 1.0
    if mean > 1 - _FALL and not new:
        return []
    before, after = (_area.area(sizes, chance_accuracy, truncated=True) for sizes in (distances, smaller))
    fall = 1 - after / before if before > 0 and not new else 0.0
    effect = f"With more effort the distances fall by {1 - mean:.1%} in geometric mean"
    if new:
        effect += f", and answers are found for {new} more images"
    elif fall > 0:
        effect += f": the area, on {len(distances)} images, is loose by at least {fall:.1%}"
    return [
        Doubt(
            "more_effort_helps",
            "loose",
            f"{effect}.",
            'Measure with MinimumNormAttack(effort="thorough").',
            {"distances_fall": 1 - mean, "area_falls": fall, "newly_found": float(new)},
        )
    ]


def not_found(distances: Tensor, chance_accuracy: float) -> list[Doubt]:
    """What images for which nothing was found do to the area: one doubt, or none where all were found.

    Args:
        distances: (N,), ``inf`` where nothing was found.
        chance_accuracy: a0, accuracy of guessing, a fraction.
    """
    missing, count = int(torch.isinf(distances).sum()), len(distances)
    if not missing:
        return []
    endless = missing / count > chance_accuracy
    effect = "the area is infinite" if endless else "they count as farther than all that were found"
    return [
        Doubt(
            "not_found",
            "wrong" if endless else "note",
            f"Nothing was found for {missing} of {count} images, so {effect}.",
            "Use an attack with more steps or a larger budget, and quote truncated_area with the count.",
            {"images": float(missing), "share": missing / count},
        )
    ]
