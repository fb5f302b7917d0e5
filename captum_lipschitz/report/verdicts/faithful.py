"""The paper's claim 3 about one model: adversarial explanations beside the other methods, by measures of faithfulness.

What is no faithfulness (stability, the promise that adversarial explanations are made to keep, dependence on the
parameters) has findings of its own, outside the claim's verdict.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor

from captum_lipschitz.metrics.estimates import LEVEL, Estimate, Side, estimate, paired_difference, side_of
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Finding, Support
from captum_lipschitz.report.explanations.methods import TITLES
from captum_lipschitz.report.verdicts.sides import (
    OURS,
    WORDS,
    correction,
    level_of,
    majority,
    support_of,
)
from captum_lipschitz.report.verdicts.tabled import Values
from captum_lipschitz.report.verdicts.worded import counted, listed, number

UNLEARNT = 0.5  # rank correlation with the randomised model's map above which a method hardly depends on parameters
_COMPARED = {"faithfulness": "faithful", "stability": "stable", "promise": "effective"}
_OUTSIDE = {
    "faithfulness": "",
    "stability": "Outside the verdict on faithfulness: a map that is the same for every image is the most stable one. ",
    "promise": "Outside the verdict on faithfulness: adversarial explanations are made to move the decision as far as "
    "possible at this size, which is what is measured here, so that the comparison is circular. ",
}


def fidelity_findings(values: Values) -> tuple[Finding, ...]:
    """Claim 3: adversarial explanations beside every other method by faithfulness; then measure by measure.

    Args:
        values: of ``explanation_fidelity``, by name of the method, then key of the measure.

    Returns:
        A summary, a finding for each other method, one for each measure that methods are ranked by, and one for each
        method that hardly depends on what the model learnt. Only measures of faithfulness decide the first two.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (adversarial explanations are more faithful). Adebayo et al.
        2018, arXiv 1810.03292 (randomised parameters).
    """
    sanity = _unlearnt(values)
    others = [method for method in values if method != OURS]
    if OURS not in values or not others:
        return sanity
    beside = {other: _beside(values, other) for other in others}
    singles = [finding for finding in beside.values() if finding is not None]
    by_measure = [_by_measure(values, others, key) for kind in _COMPARED for key in of_kind(kind)]
    found = [finding for finding in (*singles, *by_measure) if finding is not None]
    summary = _summary(singles, [TITLES[other] for other, finding in beside.items() if finding is None])
    return (*summary, *found, *sanity)


def of_kind(kind: str) -> list[str]:
    """Keys of the measures of one kind.

    Example:
        >>> of_kind("faithfulness")
        ['insertion', 'deletion', 'infidelity', 'road']
    """
    return [key for key, measure in FIDELITY_MEASURES.items() if measure.kind == kind]


def advantage(values: Values, other: str, key: str, *, level: float = LEVEL) -> Estimate | None:
    """By how much adversarial explanations are better than another method's by one measure, above 0 if they are.

    Paired, on the images that have a value of both; ``None`` where there is no such image.
    """
    ours, theirs = values[OURS].get(key), values[other].get(key)
    if ours is None or theirs is None:
        return None
    found = paired_difference(*oriented(key, ours, theirs), level=level)
    return found if found.images else None


def oriented(key: str, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the order in which the first minus the second is above 0 where ours is better."""
    return (ours, theirs) if FIDELITY_MEASURES[key].better == "higher" else (theirs, ours)


def _advantages(values: Values, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], tuple[Estimate, Side]]:
    """By method and measure: the advantage with its 95% interval, and the side by the interval for so many at once."""
    single = {pair: found for pair in pairs if (found := advantage(values, *pair)) is not None}
    sides = {}
    for who, key in single:
        wide = advantage(values, who, key, level=level_of(len(single)))
        sides[who, key] = "undecided" if wide is None else side_of(wide, FIDELITY_MEASURES[key].smallest)
    return {pair: (found, sides[pair]) for pair, found in single.items()}


def _beside(values: Values, other: str) -> Finding | None:
    """Adversarial explanations beside one method, by every measure of faithfulness."""
    keys = [key for key in of_kind("faithfulness") if key in values[OURS]]
    found = {key: one for (_, key), one in _advantages(values, [(other, key) for key in keys]).items()}
    if not found:
        return None
    sides = {FIDELITY_MEASURES[key].title: side for key, (_, side) in found.items()}
    lacking = [FIDELITY_MEASURES[key].title for key in keys if key not in found]
    missing = f" Not compared by {listed(lacking)}, of which one of the two has no figure." if lacking else ""
    return Finding(
        claim=f"Adversarial explanations are more faithful than {TITLES[other]}.",
        support=majority([support_of(side, "above") for side in sides.values()]),
        text=f"{_told(sides, 'by', 'faithful')}{too_small(found)}{missing}{correction(len(found))}",
        figures={f"advantage by {FIDELITY_MEASURES[key].title}": one for key, (one, _) in found.items()},
    )


def _by_measure(values: Values, others: Sequence[str], key: str) -> Finding | None:
    """Adversarial explanations beside every method, by one measure."""
    found = {who: one for (who, _), one in _advantages(values, [(other, key) for other in others]).items()}
    if not found:
        return None
    measure = FIDELITY_MEASURES[key]
    sides = {TITLES[other]: side for other, (_, side) in found.items()}
    lacking = [TITLES[other] for other in others if other not in found]
    missing = f" Not compared, as there is no figure: {listed(lacking)}." if lacking else ""
    support: Support = "undecided"
    if set(sides.values()) == {"above"}:
        support = "supported"
    elif "below" in sides.values():
        support = "contradicted"
    what = _COMPARED[measure.kind]
    return Finding(
        claim=f"By {measure.title}, adversarial explanations are more {what} than every other method compared.",
        support=support,
        text=f"{_OUTSIDE[measure.kind]}{_told(sides, 'than', what)}{too_small([key])}{missing}{correction(len(found))}",
        figures={f"advantage over {TITLES[other]}": one for other, (one, _) in found.items()},
    )


def _unlearnt(values: Values) -> tuple[Finding, ...]:
    """Methods that fail, as random parameters leave their maps much the same; the others are not ranked."""
    findings = []
    for key in of_kind("sanity"):
        known = {who: found[key] for who, found in values.items() if key in found and not found[key].isnan().all()}
        for who, correlations in known.items():
            if estimate(correlations, level=level_of(len(known))).compared_with(UNLEARNT) == "above":
                shown = estimate(correlations)
                findings.append(
                    Finding(
                        claim=f"{TITLES[who]} hardly depends on what the model learnt.",
                        support="supported",
                        text=f"Its maps keep a rank correlation of {number(shown)}, above {UNLEARNT:g}, with those of "
                        f"the same network with all parameters random.{correction(len(known))}",
                        figures={FIDELITY_MEASURES[key].title: shown},
                    )
                )
    return tuple(findings)


def _told(sides: Mapping[str, Side], word: Literal["by", "than"], what: str) -> str:
    """What goes which way: by measures, or than methods."""
    names = {side: [name for name, one in sides.items() if one == side] for side in get_args(Side)}
    compared, equal = ("by", "by") if word == "by" else ("compared with", "as")
    groups = {
        f"They are more {what} {word}": names["above"],
        f"They are less {what} {word}": names["below"],
        f"They are as {what} {equal}": names["same"],
        f"The sample cannot tell {compared}": names["undecided"],
        f"Too few images to tell {compared}": names["too few"],
    }
    told = [f"{begins} {listed(these)}" for begins, these in groups.items() if these]
    return f"{'. '.join(told)}."


def too_small(keys: Iterable[str]) -> str:
    """A sentence on the differences that do not matter by these measures, with a space before it, if there are any."""
    sizes = sorted({FIDELITY_MEASURES[key].smallest for key in keys} - {0.0})
    return f" Differences of up to {listed([f'{size:g}' for size in sizes])} count as none." if sizes else ""


def _summary(findings: Sequence[Finding], lacking: Sequence[str]) -> tuple[Finding, ...]:
    """All of the claim: where single ones point both ways it is undecided, and what points where is said."""
    if not findings:
        return ()
    supports = [finding.support for finding in findings]
    told = listed([f"{supports.count(side)} {words}" for side, words in WORDS.items() if side in supports])
    mixed = " They point both ways: see which." if {"supported", "contradicted"} <= set(supports) else ""
    missing = f" Not compared, as there is no figure: {listed(lacking)}." if lacking else ""
    measures = listed([FIDELITY_MEASURES[key].title for key in of_kind("faithfulness")])
    return (
        Finding(
            claim="Adversarial explanations are more faithful than those of the other methods "
            "(the paper's third claim).",
            support=majority(supports),
            text=f"By measures of faithfulness alone ({measures}, as far as they were taken), beside "
            f"{counted(len(findings), 'other method')}, taken one by one, {told}.{mixed}{missing}",
        ),
    )
