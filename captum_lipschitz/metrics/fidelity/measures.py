"""The measures by name: titles and texts for tables, and which way is better for an explanation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

Kind = Literal["faithfulness", "stability", "promise", "sanity"]


@dataclass(frozen=True, kw_only=True)
class FidelityMeasure:
    """What a figure is.

    Attributes:
        key: short, for files.
        title: of a column.
        text: one sentence: what it is, with its unit or range.
        better: which way is better for an explanation.
        kind: what it is evidence of. ``"faithfulness"``: that the explanation tells what the model goes by, and only
            these decide which of two explanations is more faithful. ``"stability"``: that it hardly moves, of which a
            map that is the same for every image has most. ``"promise"``: that the model answers to a change along it,
            which an explanation made by optimising that answer fulfils by design. ``"sanity"``: that it depends on
            what the model learnt, which a method does or does not; how much is no merit.
        smallest: the smallest difference of two means that matters, in the measure's unit, 1% of the range of those
            with a range of 1; 0 where the unit has no natural size.
    """

    key: str
    title: str
    text: str
    better: Literal["higher", "lower"]
    kind: Kind
    smallest: float


_MEASURES = (
    FidelityMeasure(
        key="insertion",
        title="Insertion",
        text="Area under the target's probability, over the clean image's, while the positions that the explanation "
        "ranks highest replace a blurred image (or the data's mean); from 0, the clean probability is 1.",
        better="higher",
        kind="faithfulness",
        smallest=0.01,
    ),
    FidelityMeasure(
        key="deletion",
        title="Deletion",
        text="The same while the positions ranked highest are replaced by the blurred image (or the data's mean).",
        better="lower",
        kind="faithfulness",
        smallest=0.01,
    ),
    FidelityMeasure(
        key="infidelity",
        title="Infidelity",
        text="Share of the mean squared change of the output that the method explains, when random blocks are replaced "
        "by what the method takes for absent, that the explanation (scaled in the best way) does not predict: 0 to 1.",
        better="lower",
        kind="faithfulness",
        smallest=0.01,
    ),
    FidelityMeasure(
        key="max_sensitivity",
        title="Max-sensitivity",
        text="Largest change of the explanation under small uniform noise, relative to its own length; from 0.",
        better="lower",
        kind="stability",
        smallest=0.01,
    ),
    FidelityMeasure(
        key="behaviour_toward",
        title="Toward",
        text="Gain of the target's log-odds by moving the image along the explanation, per unit of RMSE moved.",
        better="higher",
        kind="promise",
        smallest=0.0,
    ),
    FidelityMeasure(
        key="behaviour_away",
        title="Away",
        text="Loss of the target's log-odds by moving the image against the explanation, per unit of RMSE moved.",
        better="higher",
        kind="promise",
        smallest=0.0,
    ),
    FidelityMeasure(
        key="stability",
        title="Stability",
        text="Rank correlation of the maps of two images that differ by noise of rounding size; -1 to 1.",
        better="higher",
        kind="stability",
        smallest=0.01,
    ),
    FidelityMeasure(
        key="road",
        title="ROAD",
        text="Share of removal levels at which the model still decides for the target, the positions ranked highest "
        "being replaced from their surroundings (Quantus); 0 to 1.",
        better="lower",
        kind="faithfulness",
        smallest=0.01,
    ),
    FidelityMeasure(
        key="parameter_randomisation",
        title="Parameter randomisation",
        text="Rank correlation with the map that the method makes of the same network with all parameters randomised "
        "(Quantus); -1 to 1.",
        better="lower",
        kind="sanity",
        smallest=0.01,
    ),
)

FIDELITY_MEASURES: Mapping[str, FidelityMeasure] = MappingProxyType({measure.key: measure for measure in _MEASURES})
"""By key, in the order of the table's columns."""
