"""The paper's claims about one model, in plain words: claim 2 here, claim 3 in ``faithful``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from captum_lipschitz.metrics.estimates import estimate, paired_difference, side_of
from captum_lipschitz.report.content import Finding, Support
from captum_lipschitz.report.explanations.methods import TITLES
from captum_lipschitz.report.verdicts.faithful import fidelity_findings
from captum_lipschitz.report.verdicts.sides import OURS, RANDOM, majority, support_of
from captum_lipschitz.report.verdicts.tabled import Values
from captum_lipschitz.report.verdicts.worded import listed, number, share, why_open

__all__ = ["OURS", "fidelity_findings", "invalidation_findings"]

SAME = 0.5  # rank correlation above which a map counts as the one that it was
SMALLEST = 0.01  # difference of two shares, or of two strengths, that matters
_BASELINES = (OURS, RANDOM)  # that claim 2 is not about: our own explanation, and the map that knows nothing


def invalidation_findings(values: Values) -> tuple[Finding, ...]:
    """Claim 2, for each method but the baselines: its map stays, the change avoids it, and avoiding it costs less.

    Args:
        values: of ``InvalidationResult`` and ``tabled.with_derived``.

    Returns:
        A summary, for which a method is invalidated where all three hold, and the three findings of each method; none
        where there is no such method.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (attacks invalidate explanations).
    """
    random = values.get(RANDOM, {}).get("strength_outside")
    found = {
        method: (
            _map_stays(TITLES[method], one),
            _change_avoids(TITLES[method], one),
            _avoiding_costs_less(TITLES[method], one, random),
        )
        for method, one in values.items()
        if method not in _BASELINES
    }
    if not found:
        return ()
    return (_summary(found), *(finding for three in found.values() for finding in three))


def _map_stays(title: str, values: Mapping[str, Tensor]) -> Finding:
    correlation, top = estimate(values["rank_correlation"]), estimate(values["top_overlap"])
    figures = {"rank correlation": correlation, "overlap of the top tenth": top}
    told = (
        "The map for the new decision says nothing further: on every image it is as like the map before as the label's "
        "is, as it is bound to be with two classes, of which one's evidence for is the other's against."
    )
    if "new_class_rank_correlation" in values:
        new = figures["with the new decision's map"] = estimate(values["new_class_rank_correlation"])
        told = f"With the map for the new decision the correlation is {number(new)}."
    verdict = correlation.compared_with(SAME)
    what = {
        "above": "that is the same map as before, by and large",
        "below": "the map changes with the decision",
    }.get(verdict, why_open(verdict, correlation, f"{SAME:g}, above which a map counts as the one it was"))
    return Finding(
        claim=f"Attacks change the decision and leave the map of {title} as it was.",
        support=support_of(verdict, "above"),
        text=f"After attacks that changed the decision, the map for the label kept a rank correlation of "
        f"{number(correlation)} with the map before, and {share(top)} of its most important tenth stayed: {what}. "
        f"{told}",
        figures=figures,
    )


def _change_avoids(title: str, values: Mapping[str, Tensor]) -> Finding:
    outside, random = estimate(values["outside"]), estimate(values["at_random"])
    beyond = estimate(values["outside_minus_at_random"])
    verdict = side_of(beyond, SMALLEST)
    what = {
        "above": "the attacks avoid what the map calls important",
        "below": "the map holds more of the attacks' changes than chance would give it",
        "same": f"the two differ by no more than {SMALLEST:g}",
    }.get(verdict, why_open(verdict, beyond, f"{SMALLEST:g} or -{SMALLEST:g}, the smallest difference that matters"))
    return Finding(
        claim=f"Attacks make their changes outside the region that {title} calls important, more than by chance.",
        support=support_of(verdict, "above"),
        text=f"{share(outside)} of the energy of the attacks' changes lies outside that region, and a region of that "
        f"size drawn at random leaves {share(random)} outside: {what}.",
        figures={"energy outside": outside, "outside a random region": random, "difference": beyond},
    )


def _avoiding_costs_less(title: str, values: Mapping[str, Tensor], random: Tensor | None) -> Finding:
    """Beside attacks that avoid a random region: that they succeed on most of the image would say nothing by itself."""
    claim = f"Attacks that may not touch what {title} calls important lose less than by not touching a random region."
    success, strength = estimate(values["succeeds_outside"]), estimate(values["strength_outside"])
    within = estimate(values["succeeds_within"])
    if not success.images and not strength.images:
        return Finding(claim=claim, support="undecided", text="Not looked at: there is no confined attack to go by.")
    figures = {"success outside": success, "success within": within, "strength outside": strength}
    told = f"Confined to the rest, they change the decision on {share(success)} of the images, with a strength of "
    told += f"{number(strength)} (the free attack's size over theirs: 1 where confining costs nothing)"
    beyond = None if random is None else paired_difference(values["strength_outside"], random)
    if random is None or beyond is None or not beyond.images:
        why = "What that says cannot be told: there is no attack that avoids a random map's region to compare with."
        return Finding(claim=claim, support="undecided", text=f"{told}. {why}", figures=figures)
    verdict = side_of(beyond, SMALLEST)
    what = {
        "above": "avoiding what the map calls important costs them less than avoiding a random region",
        "below": "avoiding what the map calls important costs them more than avoiding a random region",
        "same": f"the two differ by no more than {SMALLEST:g}",
    }.get(verdict, why_open(verdict, beyond, f"{SMALLEST:g} or -{SMALLEST:g}, the smallest difference that matters"))
    by_chance = estimate(random)
    return Finding(
        claim=claim,
        support=support_of(verdict, "above"),
        text=f"{told}, and with {number(by_chance)} where they avoid a random map's region of the same size: {what}.",
        figures={**figures, "strength outside a random region": by_chance, "difference from random": beyond},
    )


def _summary(found: Mapping[str, Sequence[Finding]]) -> Finding:
    """A method is invalidated where all its findings hold, and is not where one of them is contradicted."""
    names: dict[Support, list[str]] = {"supported": [], "contradicted": [], "undecided": []}
    supports: list[Support] = []
    for method, findings in found.items():
        single = {finding.support for finding in findings}
        support: Support = "undecided"
        if single == {"supported"}:
            support = "supported"
        elif "contradicted" in single:
            support = "contradicted"
        supports.append(support)
        names[support].append(TITLES[method])
    count, of = len(names["supported"]), len(found)
    told = {
        "Invalidated": names["supported"],
        "Not, as the figures contradict at least one": names["contradicted"],
        "Cannot be told of": names["undecided"],
    }
    which = " ".join(f"{begins}: {listed(these)}." for begins, these in told.items() if these)
    return Finding(
        claim="Attacks invalidate the explanations of the other methods (the paper's second claim).",
        support=majority(supports),
        text=f"Invalidated means all three of the statements below: the map stays, the change avoids it, and avoiding "
        f"it costs less than avoiding a random region. That holds for {count} of {of} "
        f"{'method' if of == 1 else 'methods'}. {which}",
    )
