"""From intervals to verdicts: differences too small to matter, several comparisons at once, support of a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from captum_lipschitz.metrics.estimates import Side
from captum_lipschitz.report.content import Support
from captum_lipschitz.report.verdicts.worded import counted

OURS = "adversarial"
RANDOM = "random"  # the map that knows nothing
WORDS: Mapping[Support, str] = {
    "supported": "supported by the figures",
    "contradicted": "contradicted by them",
    "undecided": "cannot be decided by them",
}


def support_of(verdict: Side, supporting: Side) -> Support:
    """What an interval on one side of a limit says to a claim that wants it on the ``supporting`` side.

    Example:
        >>> support_of("above", "above"), support_of("below", "above"), support_of("too few", "above")
        ('supported', 'contradicted', 'undecided')
    """
    if verdict not in ("above", "below"):
        return "undecided"
    return "supported" if verdict == supporting else "contradicted"


def majority(supports: Sequence[Support]) -> Support:
    """One side only, and no fewer on it than tell nothing; otherwise undecided.

    Example:
        >>> majority(["supported", "undecided"]), majority(["supported", "contradicted", "supported"])
        ('supported', 'undecided')
    """
    better, worse = supports.count("supported"), supports.count("contradicted")
    if (better and worse) or 2 * max(better, worse) < len(supports) or not supports:
        return "undecided"
    return "supported" if better else "contradicted"


def level_of(comparisons: int) -> float:
    """The level of each interval at which so many comparisons together err in 5% of samples (Bonferroni).

    Approximately: bootstrap intervals of few images are narrower than their level. Of nine comparisons of normal values
    without a difference, one at least errs in about a tenth of samples of 40 images, and in a fifth of 16 (uncorrected:
    four and five tenths).

    Example:
        >>> level_of(1), round(level_of(10), 4)
        (0.95, 0.995)
    """
    return 1 - 0.05 / max(1, comparisons)


def correction(comparisons: int) -> str:
    """A sentence on ``level_of``, with a space before it; nothing for one comparison."""
    if comparisons < 2:
        return ""
    return (
        f" Decided by intervals of {100 * level_of(comparisons):.4g}%, as these are "
        f"{counted(comparisons, 'comparison')} at once (Bonferroni); the figures' intervals are of 95%."
    )
