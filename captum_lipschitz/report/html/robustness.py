"""How often the model is right, and up to which size of change it stays so."""

from __future__ import annotations

import math
from collections.abc import Sequence

from captum_lipschitz.metrics.estimates import Estimate
from captum_lipschitz.report.content import Audit, ModelAudit, Robustness
from captum_lipschitz.report.html.curve import Line, drawn, legend
from captum_lipschitz.report.html.figures import NO_VALUE, RHO, decimals_of, fraction, interval, number
from captum_lipschitz.report.html.markup import Html, escaped, joined, named, scrolled, tag

_EXPLAINED = (
    "The Accuracy-Robustness Area (ARA) is the area between the curve and the accuracy of guessing: how large a change "
    "the model bears before it does no better than guessing, averaged over images. It is an upper bound, because a "
    "stronger attack could find smaller changes."
)


def robustness_section(audit: Audit) -> Html:
    """Figures of all models in one table, their curves in one drawing, and each one's doubts."""
    measured = [(model, model.robustness) for model in audit.models if model.robustness is not None]
    if not measured:
        return tag("p", "Not measured; the reason is under “What was left out”.")
    units = {_text(robustness, "norm") for _, robustness in measured}
    unit = "RMSE" if units <= {"rmse", NO_VALUE} else " or ".join(sorted(units))
    lines = [_line(model, robustness) for model, robustness in measured]
    beside = [tag("div", _figures(measured, unit), tag("p", _EXPLAINED, class_="note"))]
    if any(line.rho for line in lines):
        names = [named(model.name) for model, _ in measured]
        figure = tag("figure", drawn(lines, unit=unit), tag("figcaption", legend(lines, names)))
        beside.append(tag("div", figure, _data(lines, names, unit)))
    parts = [tag("div", *beside, class_="beside")]
    parts += [_doubts(model, robustness, several=len(audit.models) > 1) for model, robustness in measured]
    return joined(parts)


def area_in_words(robustness: Robustness) -> str:
    """The area with its interval: ``"0.12 (0.11 to 0.13)"``."""
    area = robustness.ara.get("area")
    low, high = robustness.ara.get("interval") or (None, None)
    bounds = (math.nan if low is None else low, math.inf if high is None else high)
    decimals = decimals_of(Estimate(math.inf if area is None else area, bounds, 0, 0))
    if area is None:
        return f"unbounded ({number(low, decimals=decimals)} or more)" if low is not None else "unbounded"
    if low is None:
        return f"{number(area)} (no interval)"
    return f"{number(area, decimals=decimals)} ({interval(low, high, decimals=decimals)})"


def _figures(measured: Sequence[tuple[ModelAudit, Robustness]], unit: str) -> Html:
    rows: list[tuple[str, list[str]]] = [
        ("Accuracy on these images", [_accuracy(one) for _, one in measured]),
        (f"ARA, {unit}, with 95% interval", [area_in_words(one) for _, one in measured]),
        ("Accuracy of guessing", [_share(one, "chance_accuracy") for _, one in measured]),
        ("Images that no attack changed", [_text(one, "not_found") for _, one in measured]),
        ("Attack", [_text(one, "attack") for _, one in measured]),
        ("Criterion", [_text(one, "criterion") for _, one in measured]),
    ]
    known = [(title, values) for title, values in rows if set(values) != {NO_VALUE}]
    body = [
        tag("tr", tag("th", title, scope="row"), *(tag("td", named(value)) for value in values))
        for title, values in known
    ]
    names = [tag("th", named(model.name), scope="col") for model, _ in measured]
    head = [tag("thead", tag("tr", tag("td"), *names))] if len(measured) > 1 else []
    caption = tag("caption", "Accuracy and robustness", class_="unseen")
    return tag("table", caption, *head, tag("tbody", *body), class_="pairs")


def _accuracy(robustness: Robustness) -> str:
    correct = robustness.ara.get("correct")
    counted = f" ({sum(map(bool, correct))} of {len(correct)})" if isinstance(correct, Sequence) and correct else ""
    return fraction(robustness.accuracy) + counted


def _line(model: ModelAudit, robustness: Robustness) -> Line:
    points = [
        (rho, share)
        for rho, share in zip(robustness.curve_rho, robustness.curve_accuracy, strict=True)
        if math.isfinite(rho) and math.isfinite(share)
    ]
    chance = robustness.ara.get("chance_accuracy")
    return Line(name=model.name, rho=[rho for rho, _ in points], accuracy=[share for _, share in points], chance=chance)


def _data(lines: Sequence[Line], names: Sequence[Html], unit: str) -> Html:
    """The curve as a table: every size at which some line has a point."""
    sizes = sorted({rho for line in lines for rho in line.rho})
    found = [dict(zip(line.rho, line.accuracy, strict=True)) for line in lines]
    rows = [
        tag(
            "tr",
            tag("th", number(rho), scope="row"),
            *(tag("td", fraction(one[rho]) if rho in one else NO_VALUE) for one in found),
        )
        for rho in sizes
    ]
    heads = [tag("th", joined(["accuracy of ", name]), scope="col") for name in names]
    head = tag("tr", tag("th", f"{RHO} ({unit})", scope="col"), *heads)
    table = tag(
        "table", tag("caption", "Points of the curve", class_="unseen"), tag("thead", head), tag("tbody", *rows)
    )
    inner = scrolled(table, "Points of the curve", class_="low")
    return tag("details", tag("summary", "The curve as a table"), inner)


def _doubts(model: ModelAudit, robustness: Robustness, *, several: bool) -> Html:
    whose = joined([" of ", named(model.name)]) if several else escaped("")
    if not robustness.doubts:
        return tag("p", "No reason to doubt the area was found", whose, ".", class_="note")
    items = [tag("li", doubt) for doubt in robustness.doubts]
    return tag("div", tag("h3", "Reasons to doubt the area", whose), tag("ul", *items), class_="doubts")


def _share(robustness: Robustness, key: str) -> str:
    value = robustness.ara.get(key)
    return NO_VALUE if value is None else fraction(value)


def _text(robustness: Robustness, key: str) -> str:
    value = robustness.ara.get(key)
    return NO_VALUE if value is None else str(value)
