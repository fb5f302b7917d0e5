"""Two models on the same images: paired differences, and what they say of claim 3 on the more robust one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics import AraResult, compare
from captum_lipschitz.metrics.estimates import Estimate, paired_difference
from captum_lipschitz.metrics.fidelity import FIDELITY_MEASURES
from captum_lipschitz.report.content import Finding, Measure
from captum_lipschitz.report.findings import OURS, oriented, support_of
from captum_lipschitz.report.methods import TITLES
from captum_lipschitz.report.tabled import Values
from captum_lipschitz.report.worded import listed, number

_ARA = "Accuracy-Robustness Area"


@dataclass(frozen=True)
class Measured:
    """One model's values: its name, its area (``None`` where there is none), and the two claims' figures."""

    name: str
    area: AraResult | None
    invalidation: Values
    fidelity: Values


def comparison(first: Measured, second: Measured, measures: Sequence[Measure]) -> dict[str, Estimate]:
    """Second minus first, on the same images: accuracy, area, and every measure of every method that both have."""
    found: dict[str, Estimate] = {}
    if first.area is not None and second.area is not None:
        found["Accuracy"] = paired_difference(second.area.correct.double(), first.area.correct.double())
        area = area_difference(first.area, second.area)
        if area is not None:
            found[_ARA] = area
    titles = {**{m.key: m.title for m in measures}, **{key: m.title for key, m in FIDELITY_MEASURES.items()}}
    for ours, theirs in ((first.invalidation, second.invalidation), (first.fidelity, second.fidelity)):
        for method in (name for name in ours if name in theirs):
            for key in (key for key in titles if key in ours[method] and key in theirs[method]):
                difference = paired_difference(theirs[method][key], ours[method][key])
                if difference.images:
                    found[f"{TITLES[method]}: {titles[key]}"] = difference
    return found


def area_difference(first: AraResult, second: AraResult) -> Estimate | None:
    """Second area minus first with its paired interval; ``None`` where one of them is infinite or zero."""
    try:
        found = compare(second, first)
    except InvalidInputError:
        return None
    interval = found.difference_interval if len(first) >= 8 else (torch.nan, torch.nan)
    return Estimate(found.difference, interval, len(first), 0)


def more_robust(first: Measured, second: Measured) -> int | None:
    """0 or 1: the model whose area is larger, as far as these images can tell."""
    if first.area is None or second.area is None:
        return None
    difference = area_difference(first.area, second.area)
    verdict = "undecided" if difference is None else difference.compared_with(0.0)
    return {"above": 1, "below": 0}.get(verdict)


def robust_finding(first: Measured, second: Measured) -> tuple[int, Finding] | None:
    """Is the advantage of adversarial explanations larger on the more robust model? And which model that is.

    For each measure: by how much they are better than the other methods' mean, image by image, on one model and on the
    other; the difference is paired. ``None`` where the areas do not tell which model is the more robust one.
    """
    which = more_robust(first, second)
    if which is None:
        return None
    robust, other = ((first, second), (second, first))[which]
    figures: dict[str, Estimate] = {}
    for key, measure in FIDELITY_MEASURES.items():
        pair = [_advantages(model.fidelity, key, _shared(first, second, key)) for model in (robust, other)]
        if pair[0] is not None and pair[1] is not None:
            difference = paired_difference(pair[0], pair[1])
            if difference.images:
                figures[f"by {measure.title}"] = difference
    if not figures:
        return None
    verdicts = {name: found.compared_with(0.0) for name, found in figures.items()}
    groups = {
        "larger": [name for name, verdict in verdicts.items() if verdict == "above"],
        "smaller": [name for name, verdict in verdicts.items() if verdict == "below"],
        "not to be told apart": [name for name, verdict in verdicts.items() if verdict not in ("above", "below")],
    }
    sides = {support_of(verdict, "above") for verdict in verdicts.values()} - {"undecided"}
    enough = 2 * len(groups["not to be told apart"]) <= len(verdicts)
    told = "; ".join(f"{what} {listed(names)}" for what, names in groups.items() if names)
    areas = [f"{model.name} {model.area.area:.3g}" for model in (robust, other) if model.area is not None]
    finding = Finding(
        claim="The advantage of adversarial explanations over the other methods is larger on the more robust model.",
        support=sides.pop() if len(sides) == 1 and enough else "undecided",
        text=f"{robust.name} is the more robust one (areas: {listed(areas)}). On it the advantage over the other "
        f"methods' mean is {told}.",
        figures=figures,
    )
    return which, finding


def robustness_finding(first: Measured, second: Measured) -> Finding | None:
    """Which of the two is the more robust, if these images can tell."""
    if first.area is None or second.area is None:
        return None
    difference = area_difference(first.area, second.area)
    if difference is None:
        return None
    verdict = difference.compared_with(0.0)
    return Finding(
        claim=f"{second.name} is more robust than {first.name}.",
        support=support_of(verdict, "above"),
        text=f"The difference of their {_ARA}s, second minus first on the same images, is {number(difference)}.",
        figures={_ARA: difference},
    )


def _shared(first: Measured, second: Measured, key: str) -> list[str]:
    """Other methods that have a value of the measure on both models."""
    return [
        method
        for method, found in first.fidelity.items()
        if method != OURS and key in found and key in second.fidelity.get(method, {})
    ]


def _advantages(values: Mapping[str, Mapping[str, Tensor]], key: str, others: Sequence[str]) -> Tensor | None:
    """Image by image, (N,): better than the mean of the others by so much; NaN where one has no value."""
    ours = values.get(OURS, {}).get(key)
    if ours is None or not others:
        return None
    mean = torch.stack([values[other][key] for other in others]).mean(0)
    better, worse = oriented(key, ours, mean)
    return better - worse
