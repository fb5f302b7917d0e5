"""Values per method and image as tables: means with intervals, paired differences, and what the sample can tell."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from captum_lipschitz.metrics.estimates import Verdict, estimate, paired_difference, side_of
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Cell, Measure, Table
from captum_lipschitz.report.explanations.methods import TITLES
from captum_lipschitz.report.verdicts.sides import RANDOM

Values = Mapping[str, Mapping[str, Tensor]]
"""By name of the method, then by key of the measure: one value per image, (N,), NaN where there is none."""

INVALIDATION: tuple[Measure, ...] = (
    Measure(
        key="rank_correlation",
        title="Same map after the attack",
        text="Rank correlation of the label's map before the attack with the label's map after it, -1 to 1.",
        better=None,
    ),
    Measure(
        key="top_overlap",
        title="Same top tenth",
        text="Share of the tenth of positions ranked highest that is still among it after the attack, 0 to 1.",
        better=None,
    ),
    Measure(
        key="structural",
        title="Structural similarity",
        text="SSIM of the label's map before and after the attack, -1 to 1.",
        better=None,
    ),
    Measure(
        key="cosine",
        title="Cosine",
        text="Cosine of the angle between the label's map before and after the attack, -1 to 1.",
        better=None,
    ),
    Measure(
        key="new_class_rank_correlation",
        title="Map of the new decision",
        text="Rank correlation of the label's map before with the new decision's map after the attack, -1 to 1: near 1 "
        "where the method gives both decisions the same reasons. Left out where it is that of the label's map on every "
        "image, as with two classes, of which one's evidence for is the other's against.",
        better="lower",
    ),
    Measure(
        key="outside",
        title="Change outside",
        text="Share of the attack's energy outside the fifth of the image that the map calls important, 0 to 1.",
        better="lower",
    ),
    Measure(
        key="outside_minus_at_random",
        title="Beyond chance",
        text="That share minus what a region of the same size drawn at random leaves outside: above 0 where the attack "
        "avoids what the map calls important.",
        better="lower",
    ),
    Measure(
        key="placements_as_good",
        title="Placements as good",
        text="Share of all places to which the region could be moved that hold as much of the attack's energy: about a "
        "half for a map that knows nothing, near 0 for one that knows where the energy is.",
        better="lower",
    ),
    Measure(
        key="succeeds_within",
        title="Success within",
        text="Share of the images on which an attack confined to the important region still changes the decision.",
        better="higher",
    ),
    Measure(
        key="succeeds_outside",
        title="Success outside",
        text="Share of the images on which an attack confined to the rest still changes the decision.",
        better="lower",
    ),
    Measure(
        key="strength_within",
        title="Strength within",
        text="Size of the free attack over that of one confined to the important region: 1 where confining costs "
        "nothing, 0 where nothing was found.",
        better="higher",
    ),
    Measure(
        key="strength_outside",
        title="Strength outside",
        text="The same for the attack confined to the rest of the image.",
        better="lower",
    ),
    Measure(
        key="strength_beyond_random",
        title="Outside, beyond random",
        text="Strength outside minus that of attacks that avoid the random map's region of the same size, on the same "
        "image: above 0 where avoiding what the map calls important costs less than avoiding a random region.",
        better="lower",
    ),
)
"""The columns of the table on claim 2, in its order."""

_NEW, _OLD = "new_class_rank_correlation", "rank_correlation"


def with_derived(values: Values) -> dict[str, dict[str, Tensor]]:
    """The values of ``InvalidationResult`` with the differences that the table shows.

    Without the new decision's map, where that is as like the map before as the label's is on every image: so it is
    bound to be with two classes, whose maps are magnitudes of the same numbers, and it would look like a finding.

    Example:
        >>> import torch
        >>> same = {"rank_correlation": torch.ones(4), "new_class_rank_correlation": torch.ones(4)}
        >>> list(with_derived({"saliency": same})["saliency"])
        ['rank_correlation']
    """
    random = values.get(RANDOM, {}).get("strength_outside")
    derived: dict[str, dict[str, Tensor]] = {}
    for method, given in values.items():
        found = dict(given)
        if {_NEW, _OLD} <= set(found) and torch.allclose(found[_NEW], found[_OLD], rtol=0, atol=1e-9, equal_nan=True):
            del found[_NEW]
        if {"outside", "at_random"} <= set(found):
            found["outside_minus_at_random"] = found["outside"] - found["at_random"]
        if method != RANDOM and random is not None and "strength_outside" in found:
            found["strength_beyond_random"] = found["strength_outside"] - random
        derived[method] = found
    return derived


def table(values: Values, measures: tuple[Measure, ...], *, title: str, text: str, compared_with: str) -> Table | None:
    """Values as a table; a measure that no method has a value of has no column.

    Args:
        values: see ``Values``.
        measures: its columns, as far as there are values.
        title: of the table.
        text: what it shows.
        compared_with: name of the method that the others are compared with, where it is there.

    Returns:
        The table; ``None`` where there is nothing to show.

    Example:
        >>> import torch
        >>> found = {"saliency": {"outside": torch.linspace(0.5, 1, 16)}, "random": {"outside": torch.ones(16)}}
        >>> shown = table(found, INVALIDATION, title="t", text="", compared_with="random")
        >>> shown.rows["Saliency"]["outside"].verdict, shown.rows["Random map"]["outside"].verdict
        ('below', None)
    """
    shown = tuple(m for m in measures if any(_known(found.get(m.key)) for found in values.values()))
    if not shown:
        return None
    compared = values.get(compared_with)
    rows = {
        TITLES[method]: {
            measure.key: cell(
                found[measure.key],
                None if method == compared_with else (compared or {}).get(measure.key),
                smallest=FIDELITY_MEASURES[measure.key].smallest if measure.key in FIDELITY_MEASURES else 0.0,
            )
            for measure in shown
            if _known(found.get(measure.key))
        }
        for method, found in values.items()
    }
    return Table(
        title=title,
        text=text,
        measures=shown,
        rows=rows,
        compared_with=None if compared is None else TITLES[compared_with],
    )


def cell(values: Tensor, compared: Tensor | None, *, smallest: float = 0.0) -> Cell:
    """One method's figure beside the values, on the same images, that it is compared with.

    Its verdict is ``"above"`` or ``"below"`` only where all of the interval is beyond ``smallest``.
    """
    difference = None if compared is None else paired_difference(values, compared)
    verdict: Verdict | None = None
    if difference is not None:
        side = side_of(difference, smallest)
        verdict = "undecided" if side == "same" else side
    return Cell(value=estimate(values), difference=difference, verdict=verdict, values=tuple(values.double().tolist()))


def _known(values: Tensor | None) -> bool:
    return values is not None and not bool(values.isnan().all())
