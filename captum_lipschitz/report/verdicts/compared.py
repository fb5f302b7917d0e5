"""Two models on the same images: paired differences, and what they say of claim 3 on the more robust one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz.metrics import AraResult
from captum_lipschitz.metrics.area import bootstrap_areas, bootstrap_generator, percentile_interval
from captum_lipschitz.metrics.estimates import FEWEST, Estimate, paired_difference, side_of
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Finding, Measure
from captum_lipschitz.report.explanations.methods import TITLES
from captum_lipschitz.report.verdicts.faithful import of_kind, oriented, too_small
from captum_lipschitz.report.verdicts.sides import OURS, correction, level_of, majority, support_of
from captum_lipschitz.report.verdicts.tabled import Values
from captum_lipschitz.report.verdicts.worded import counted, listed, number

_ARA = "Accuracy-Robustness Area"
_COMPARABLE = [key for kind in ("faithfulness", "stability", "sanity") for key in of_kind(kind)]


@dataclass(frozen=True)
class Measured:
    """One model's values: its name, its area (``None`` where there is none), and the two claims' figures."""

    name: str
    area: AraResult | None
    invalidation: Values
    fidelity: Values


def comparison(first: Measured, second: Measured, measures: Sequence[Measure]) -> dict[str, Estimate]:
    """Second minus first, on the same images: accuracy, area, and every measure of every method that both have.

    Without the gain by moving along an explanation (toward, away): it is in the logits' own unit, so that a model whose
    logits are doubled, which changes no decision, would have twice as much.
    """
    found: dict[str, Estimate] = {}
    if first.area is not None and second.area is not None:
        found["Accuracy"] = paired_difference(second.area.correct.double(), first.area.correct.double())
        area = area_difference(first.area, second.area)
        if area is not None:
            found[_ARA] = area
    titles = {**{m.key: m.title for m in measures}, **{key: FIDELITY_MEASURES[key].title for key in _COMPARABLE}}
    for ours, theirs in ((first.invalidation, second.invalidation), (first.fidelity, second.fidelity)):
        for method in (name for name in ours if name in theirs):
            for key in (key for key in titles if key in ours[method] and key in theirs[method]):
                difference = paired_difference(theirs[method][key], ours[method][key])
                if difference.images:
                    found[f"{TITLES[method]}: {titles[key]}"] = difference
    return found


def area_difference(first: AraResult, second: AraResult) -> Estimate | None:
    """Second area minus first with its paired 95% interval; ``None`` where ``why_not`` has a reason against it.

    An area of 0 is one like any other: nothing is divided by it.
    """
    if why_not(first, second) is not None:
        return None
    interval = (torch.nan, torch.nan)
    if len(first) >= FEWEST:
        draws = [  # the same draws for both
            bootstrap_areas(result.distances, result.chance_accuracy, generator=bootstrap_generator(None))
            for result in (first, second)
        ]
        interval = percentile_interval(draws[1] - draws[0])
    return Estimate(second.area - first.area, interval, len(first), 0)


def why_not(first: AraResult, second: AraResult) -> str | None:
    """What keeps two areas from being compared, as a clause; ``None`` where they can be."""
    for which, result in (("first", first), ("second", second)):
        if not result.area < torch.inf:
            return f"the {which} model's area is infinite, as {counted(result.not_found, 'image')} could not be changed"
    if len(first) != len(second) or not torch.equal(first.labels, second.labels):
        return "the images or their labels differ"
    for setting in ("norm", "criterion", "chance_accuracy"):
        pair = getattr(first, setting), getattr(second, setting)
        if pair[0] != pair[1]:
            return f"they are areas of different {setting.replace('_', ' ')}, {pair[0]} and {pair[1]}"
    return None


def more_robust(first: Measured, second: Measured) -> int | None:
    """0 or 1: the model whose area is larger, as far as these images can tell."""
    if first.area is None or second.area is None:
        return None
    difference = area_difference(first.area, second.area)
    verdict = "undecided" if difference is None else difference.compared_with(0.0)
    return {"above": 1, "below": 0}.get(verdict)


def robust_finding(first: Measured, second: Measured) -> tuple[int, Finding] | None:
    """Is the advantage of adversarial explanations larger on the more robust model? And which model that is.

    For each measure of faithfulness: by how much they are better than the other methods' mean, image by image, on one
    model and on the other; the difference is paired. An image's mean is over the methods that have a value of it on
    both models. The gain by moving along an explanation is not among them: it grows with the logits' scale.

    Returns:
        The model's place, 0 or 1, and the finding; ``None`` where the areas do not tell which is the more robust, or no
        measure has values on both.
    """
    which = more_robust(first, second)
    if which is None:
        return None
    robust, other = ((first, second), (second, first))[which]
    gains = {key: gain for key in of_kind("faithfulness") if (gain := _gain(robust, other, key)) is not None}
    if not gains:
        return None
    titles = {key: FIDELITY_MEASURES[key].title for key in gains}
    sides = {
        key: side_of(paired_difference(*gain.pair, level=level_of(len(gains))), FIDELITY_MEASURES[key].smallest)
        for key, gain in gains.items()
    }
    groups = {
        "larger by": [titles[key] for key, side in sides.items() if side == "above"],
        "smaller by": [titles[key] for key, side in sides.items() if side == "below"],
        "the same by": [titles[key] for key, side in sides.items() if side == "same"],
        "not to be told by": [titles[key] for key, side in sides.items() if side in ("undecided", "too few")],
    }
    told = "; ".join(f"{what} {listed(names)}" for what, names in groups.items() if names)
    areas = [f"{model.name} {model.area.area:.3g}" for model in (robust, other) if model.area is not None]
    methods = dict.fromkeys(method for gain in gains.values() for method in gain.omitted)
    omitted = [
        f"{TITLES[method]} (by {listed([titles[key] for key, gain in gains.items() if method in gain.omitted])})"
        for method in methods
    ]
    without = f" Not counted, for want of values on both models: {listed(omitted)}." if omitted else ""
    finding = Finding(
        claim="The advantage of adversarial explanations over the other methods is larger on the more robust model.",
        support=majority([support_of(side, "above") for side in sides.values()]),
        text=f"{robust.name} is the more robust one (areas: {listed(areas)}). On it the advantage over the other "
        f"methods' mean, by measures of faithfulness, is {told}.{too_small(gains)}{without}{correction(len(gains))}",
        figures={f"by {titles[key]}": paired_difference(*gain.pair) for key, gain in gains.items()},
    )
    return which, finding


def robustness_finding(first: Measured, second: Measured) -> Finding | None:
    """Which of the two is the more robust, if these images can tell, and if not why; ``None`` without two areas."""
    if first.area is None or second.area is None:
        return None
    claim = f"{second.name} is more robust than {first.name}."
    difference = area_difference(first.area, second.area)
    if difference is None:
        why = why_not(first.area, second.area)
        return Finding(claim=claim, support="undecided", text=f"The two areas cannot be compared: {why}.")
    verdict = difference.compared_with(0.0)
    return Finding(
        claim=claim,
        support=support_of(verdict, "above"),
        text=f"The difference of their {_ARA}s, second minus first on the same images, is {number(difference)}.",
        figures={_ARA: difference},
    )


class _Gain(NamedTuple):
    """The advantage over the other methods' mean on both models, (N,) each, and the methods that are not in it."""

    pair: tuple[Tensor, Tensor]
    omitted: list[str]


def _gain(robust: Measured, other: Measured, key: str) -> _Gain | None:
    """``None`` where no image has a value on both models of ours and of another method."""
    models = (robust.fidelity, other.fidelity)
    if any(key not in values.get(OURS, {}) for values in models):
        return None
    names = [name for name in dict.fromkeys((*models[0], *models[1])) if name != OURS]
    pairs = {name: [values.get(name, {}).get(key) for values in models] for name in names}
    known = {
        name: (a, b) for name, (a, b) in pairs.items() if a is not None and b is not None and not (a + b).isnan().all()
    }
    if not known:
        return None
    theirs = torch.stack([torch.stack(pair) for pair in known.values()])  # methods x models x images
    both = theirs.where(~theirs.isnan().any(1, keepdim=True), torch.nan)
    sides = [oriented(key, values[OURS][key], mean) for values, mean in zip(models, both.nanmean(0), strict=True)]
    pair = (sides[0][0] - sides[0][1], sides[1][0] - sides[1][1])
    if (pair[0] + pair[1]).isnan().all():
        return None
    return _Gain(pair, [name for name in names if name not in known])
