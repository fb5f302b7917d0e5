"""The claims in plain language, with what the figures say to each."""

from __future__ import annotations

from collections.abc import Mapping

from captum_lipschitz.metrics.estimates import Estimate
from captum_lipschitz.report.content import Audit, Finding, Support
from captum_lipschitz.report.html.figures import written
from captum_lipschitz.report.html.markup import Html, joined, named, tag

_WORDS: dict[Support, tuple[str, str, str]] = {
    "supported": ("Supported", "✓", "good"),
    "contradicted": ("Contradicted", "✗", "bad"),
    "undecided": ("Undecided", "?", "open"),
}


def findings_section(audit: Audit) -> Html:
    """Every claim once, in the order of the first model's, with each model's answer beside the other's."""
    claims = dict.fromkeys(finding.claim for model in audit.models for finding in model.findings)
    if not claims:
        return tag("p", "No claim was examined.")
    answers = [{finding.claim: finding for finding in model.findings} for model in audit.models]
    return joined(_claim(audit, claim, [answer.get(claim) for answer in answers]) for claim in claims)


def _claim(audit: Audit, claim: str, findings: list[Finding | None]) -> Html:
    several = len(findings) > 1
    columns = []
    for model, finding in zip(audit.models, findings, strict=True):
        head = [tag("h4", named(model.name))] if several else []
        body = [tag("p", "Not examined for this model.")] if finding is None else _answer(finding)
        columns.append(tag("div", *head, *body, class_="answer"))
    return tag(
        "article", tag("h3", claim), tag("div", *columns, class_="beside" if several else None), class_="finding"
    )


def _answer(finding: Finding) -> list[Html]:
    return [tag("p", badge(finding.support), " ", finding.text), *_figures(finding.figures)]


def badge(support: Support) -> Html:
    """The word, with a sign of its own shape beside the colour."""
    word, sign, look = _WORDS[support]
    return tag("strong", tag("span", sign, aria_hidden="true"), f" {word}.", class_=f"support {look}")


def _figures(figures: Mapping[str, Estimate]) -> list[Html]:
    rows = [
        tag(
            "tr",
            tag("th", named(name), scope="row"),
            tag("td", written(found), class_="figure"),
            tag("td", _counted(found), class_="count"),
        )
        for name, found in figures.items()
    ]
    head = tag("tr", *(tag("th", text, scope="col") for text in ("Figure", "Mean and 95% interval", "Images")))
    caption = tag("caption", "The figures behind it", class_="unseen")
    return [tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="figures")] if rows else []


def _counted(found: Estimate) -> str:
    return f"{found.images} of {found.images + found.left_out}" if found.left_out else str(found.images)
