"""The paper's claims 2 and 3 about one model, in plain words: supported, contradicted, or not to be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from torch import Tensor

from captum_lipschitz.metrics.estimates import Estimate, Verdict, estimate, paired_difference
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Finding, Support
from captum_lipschitz.report.methods import TITLES
from captum_lipschitz.report.tabled import Values
from captum_lipschitz.report.worded import counted, listed, number, share, why_open

SAME = 0.5  # rank correlation above which a map counts as the one that it was
MOST = 0.5  # share of images above which something happens on most of them
OURS = "adversarial"
_BASELINES = (OURS, "random")  # that claim 2 is not about: our own explanation, and the map that knows nothing


def support_of(verdict: Verdict, supporting: Verdict) -> Support:
    """What an interval on one side of a limit says to a claim that wants it on the ``supporting`` side.

    Example:
        >>> support_of("above", "above"), support_of("below", "above"), support_of("too few", "above")
        ('supported', 'contradicted', 'undecided')
    """
    if verdict not in ("above", "below"):
        return "undecided"
    return "supported" if verdict == supporting else "contradicted"


def invalidation_findings(values: Values) -> tuple[Finding, ...]:
    """Claim 2, for each method but the baselines: does its map stay, does the change avoid it, does the rest suffice?

    Args:
        values: of ``InvalidationResult`` and ``tabled.with_derived``.

    Returns:
        A summary and three findings a method; none where there is no such method.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (attacks invalidate explanations).
    """
    found = [
        make(TITLES[method], one)
        for method, one in values.items()
        if method not in _BASELINES
        for make in (_map_stays, _change_avoids, _rest_suffices)
    ]
    if not found:
        return ()
    claim = "Attacks invalidate the explanations of the other methods (the paper's second claim)."
    return (_summary(claim, found, f"Of {counted(len(found), 'statement')} about single methods below"), *found)


def fidelity_findings(values: Values) -> tuple[Finding, ...]:
    """Claim 3: adversarial explanations beside every other method, all measures; then measure by measure.

    Args:
        values: of ``explanation_fidelity``, by name of the method, then key of the measure.

    Returns:
        A summary, a finding for each other method and one for each measure; none without adversarial explanations.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (adversarial explanations are more faithful).
    """
    others = [method for method in values if method != OURS]
    if OURS not in values or not others:
        return ()
    measures = [key for key in FIDELITY_MEASURES if key in values[OURS]]
    advantages = {(other, key): advantage(values, other, key) for other in others for key in measures}
    known = {pair: found for pair, found in advantages.items() if found is not None and found.images}
    by_method = [
        _beside(other, {key: found for (who, key), found in known.items() if who == other}) for other in others
    ]
    by_measure = [
        _by_measure(key, {who: found for (who, measure), found in known.items() if measure == key}) for key in measures
    ]
    found = [finding for finding in (*by_method, *by_measure) if finding is not None]
    if not found:
        return ()
    claim = "Adversarial explanations are more faithful than those of the other methods (the paper's third claim)."
    singles = [finding for finding in by_method if finding is not None]
    return (_summary(claim, singles, f"Beside {counted(len(singles), 'other method')}, taken one by one"), *found)


def advantage(values: Values, other: str, key: str) -> Estimate | None:
    """By how much adversarial explanations are better than another method's by one measure, above 0 if they are.

    Paired, on the images that have a value of both; ``None`` where one of them has none at all.
    """
    ours, theirs = values[OURS].get(key), values[other].get(key)
    if ours is None or theirs is None:
        return None
    return paired_difference(*oriented(key, ours, theirs))


def oriented(key: str, ours: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the order in which the first minus the second is above 0 where ours is better."""
    return (ours, theirs) if FIDELITY_MEASURES[key].better == "higher" else (theirs, ours)


def _map_stays(title: str, values: Mapping[str, Tensor]) -> Finding:
    correlation, top = estimate(values["rank_correlation"]), estimate(values["top_overlap"])
    new = estimate(values["new_class_rank_correlation"])
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
        f"With the map for the new decision the correlation is {number(new)}.",
        figures={"rank correlation": correlation, "overlap of the top tenth": top, "with the new decision's map": new},
    )


def _change_avoids(title: str, values: Mapping[str, Tensor]) -> Finding:
    outside, random = estimate(values["outside"]), estimate(values["at_random"])
    beyond = estimate(values["outside_minus_at_random"])
    verdict = beyond.compared_with(0.0)
    what = {
        "above": "the attacks avoid what the map calls important",
        "below": "the map holds more of the attacks' changes than chance would give it",
    }.get(verdict, why_open(verdict, beyond, "0, no difference from chance"))
    return Finding(
        claim=f"Attacks make their changes outside the region that {title} calls important, more than by chance.",
        support=support_of(verdict, "above"),
        text=f"{share(outside)} of the energy of the attacks' changes lies outside that region, and a region of that "
        f"size drawn at random leaves {share(random)} outside: {what}.",
        figures={"energy outside": outside, "outside a random region": random, "difference": beyond},
    )


def _rest_suffices(title: str, values: Mapping[str, Tensor]) -> Finding:
    claim = f"Attacks that may change only what {title} calls unimportant still change the decision."
    success, strengths = estimate(values["succeeds_outside"]), estimate(values["within_minus_outside"])
    if not success.images and not strengths.images:
        return Finding(claim=claim, support="undecided", text="Not looked at: there is no confined attack to go by.")
    verdict = success.compared_with(MOST)
    within, outside = estimate(values["strength_within"]), estimate(values["strength_outside"])
    better = {
        "above": "the region that the map calls important is the better place to attack",
        "below": "the rest of the image is the better place to attack",
    }.get(strengths.compared_with(0.0), "which of the two is the better place to attack, these images cannot tell")
    told = "" if verdict in ("above", "below") else f" ({why_open(verdict, success, 'one half')})"
    return Finding(
        claim=claim,
        support=support_of(verdict, "above"),
        text=f"They do on {share(success)} of the images{told}. Measured by the free attack's size over theirs, their "
        f"strength is {number(outside)} (1 where confining costs nothing), and {number(within)} for those confined to "
        f"the region itself, which is smaller: {better}.",
        figures={
            "success outside": success,
            "success within": estimate(values["succeeds_within"]),
            "strength outside": outside,
            "strength within": within,
            "within minus outside": strengths,
        },
    )


def _beside(other: str, advantages: Mapping[str, Estimate]) -> Finding | None:
    """Adversarial explanations beside one method, by every measure."""
    if not advantages:
        return None
    titles = {key: FIDELITY_MEASURES[key].title for key in advantages}
    verdicts = {titles[key]: found.compared_with(0.0) for key, found in advantages.items()}
    return Finding(
        claim=f"Adversarial explanations are more faithful than {TITLES[other]}.",
        support=_majority(list(verdicts.values())),
        text=_told(verdicts, "by"),
        figures={f"advantage by {titles[key]}": found for key, found in advantages.items()},
    )


def _by_measure(key: str, advantages: Mapping[str, Estimate]) -> Finding | None:
    """Adversarial explanations beside every method, by one measure."""
    if not advantages:
        return None
    verdicts = {TITLES[other]: found.compared_with(0.0) for other, found in advantages.items()}
    against = "below" in verdicts.values()
    for_all = set(verdicts.values()) == {"above"}
    return Finding(
        claim=f"By {FIDELITY_MEASURES[key].title}, adversarial explanations are more faithful than every other method.",
        support="supported" if for_all else "contradicted" if against else "undecided",
        text=_told(verdicts, "than"),
        figures={f"advantage over {TITLES[other]}": found for other, found in advantages.items()},
    )


def _majority(verdicts: Sequence[Verdict]) -> Support:
    """One side only, and no fewer measures on it than cannot tell; otherwise undecided."""
    better, worse = verdicts.count("above"), verdicts.count("below")
    open_ = len(verdicts) - better - worse
    if better and not worse and better >= open_:
        return "supported"
    return "contradicted" if worse and not better and worse >= open_ else "undecided"


def _told(verdicts: Mapping[str, Verdict], word: Literal["by", "than"]) -> str:
    """What goes which way: by measures, or than methods."""
    names = {v: [name for name, verdict in verdicts.items() if verdict == v] for v in get_args(Verdict)}
    compared = "" if word == "by" else "compared with "
    groups = {
        f"They are more faithful {word} ": names["above"],
        f"They are less faithful {word} ": names["below"],
        f"The sample cannot tell {compared or 'by '}": names["undecided"],
        f"Too few images to tell {compared or 'by '}": names["too few"],
    }
    told = [f"{begins}{listed(these)}" for begins, these in groups.items() if these]
    return f"{'. '.join(told)}."


def _summary(claim: str, findings: Sequence[Finding], begins: str) -> Finding:
    """All of one claim: where single ones point both ways it is undecided, and what points where is said."""
    count = {support: sum(finding.support == support for finding in findings) for support in _WORDS}
    verdicts: list[Verdict] = ["above"] * count["supported"]
    verdicts += ["below"] * count["contradicted"]
    verdicts += ["undecided"] * count["undecided"]
    told = listed([f"{number_} {_WORDS[support]}" for support, number_ in count.items() if number_])
    mixed = " They point both ways: see which." if count["supported"] and count["contradicted"] else ""
    return Finding(claim=claim, support=_majority(verdicts), text=f"{begins}, {told}.{mixed}")


_WORDS: Mapping[Support, str] = {
    "supported": "supported by the figures",
    "contradicted": "contradicted by them",
    "undecided": "cannot be decided by them",
}
