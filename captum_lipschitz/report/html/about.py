"""The page's frame of words: title, summary, what was left out, settings and versions."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from typing import Any

from captum_lipschitz.report.content import Audit, ModelAudit, Robustness, Support
from captum_lipschitz.report.html.figures import duration, fraction, how_many
from captum_lipschitz.report.html.markup import Html, escaped, joined, named, tag
from captum_lipschitz.report.html.robustness import area_in_words

_TOLD: tuple[Support, ...] = ("supported", "contradicted", "undecided")


def title(audit: Audit) -> Html:
    """What is audited: one model, or two."""
    return joined(["Audit of ", joined((named(model.name) for model in audit.models), " and ")])


def plain_title(audit: Audit) -> str:
    """The title for the browser's tab, which knows no markup."""
    return "Audit of " + " and ".join(model.name for model in audit.models)


def summary(audit: Audit) -> Html:
    """What this is, and what came out, in one paragraph."""
    intro = (
        "This report asks which claims about the model, its robustness and the explanations of its decisions are "
        "supported by evidence."
        if len(audit.models) == 1
        else "This report puts two models side by side, on the same images, and asks which claims about their "
        "robustness and the explanations of their decisions are supported by evidence."
    )
    told = [_told(model) for model in audit.models]
    return tag("p", escaped(intro), " ", joined(told, " "), class_="summary")


def left_out(audit: Audit) -> Html:
    """What could not be done, and why."""
    several = len(audit.models) > 1
    rows = [
        tag(
            "tr",
            tag("th", named(what), scope="row"),
            *([tag("td", named(model.name))] if several else []),
            tag("td", why),
        )
        for model in audit.models
        for what, why in model.left_out.items()
    ]
    if not rows:
        return tag("p", "Nothing.")
    titles = ("What", "Model", "Why") if several else ("What", "Why")
    head = tag("tr", *(tag("th", text, scope="col") for text in titles))
    caption = tag("caption", "What was left out", class_="unseen")
    return tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="pairs")


def settings(audit: Audit) -> Html:
    """Everything needed to repeat the audit."""
    took = tag("p", f"The audit took {duration(audit.seconds)}.")
    tables = [("Settings", audit.settings), ("Versions", audit.versions)]
    shown = [tag("div", tag("h3", what), _pairs(what, pairs)) for what, pairs in tables if pairs]
    return joined([took, tag("div", *shown, class_="beside")])


def _told(model: ModelAudit) -> Html:
    parts: list[str] = []
    parts += [": its robustness was not measured."] if model.robustness is None else _robust(model.robustness)
    counts = Counter(finding.support for finding in model.findings)
    if counts:
        told = [f"{counts[support]} {support}" for support in _TOLD if counts[support]]
        claims = how_many(sum(counts.values()), "claim")
        parts.append(f" Of {claims} examined, {_listed(told)}.")
    else:
        parts.append(" No claim about its explanations was examined.")
    return joined(["The model ", named(model.name), *parts])


def _robust(robustness: Robustness) -> list[str]:
    correct = robustness.ara.get("correct")
    images = f" of {how_many(len(correct), 'image')}" if isinstance(correct, (list, tuple)) and correct else ""
    decided = f" decides {fraction(robustness.accuracy)}{images} rightly"
    doubts = f", with {how_many(len(robustness.doubts), 'reason')} to doubt it" if robustness.doubts else ""
    return [decided, f"; its Accuracy-Robustness Area is {area_in_words(robustness)}{doubts}."]


def _listed(parts: list[str]) -> str:
    first, rest = parts[0].split(" ", 1)
    be = "is" if first == "1" else "are"
    words = [f"{first} {be} {rest}", *parts[1:]]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1]


def _pairs(caption: str, pairs: Mapping[str, Any]) -> Html:
    rows = [
        tag("tr", tag("th", named(name), scope="row"), tag("td", named(_text(value)))) for name, value in pairs.items()
    ]
    return tag("table", tag("caption", caption, class_="unseen"), tag("tbody", *rows), class_="pairs")


def _text(value: Any) -> str:
    if value is None:
        return "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
