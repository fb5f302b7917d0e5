"""The audit as one HTML file that needs nothing else: no network, no server, no JavaScript to be read."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from string import Template

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.report.content import Audit, Table
from captum_lipschitz.report.html import about
from captum_lipschitz.report.html.findings import findings_section
from captum_lipschitz.report.html.grid import Grid
from captum_lipschitz.report.html.markup import Html, escaped, joined, named, tag
from captum_lipschitz.report.html.robustness import robustness_section
from captum_lipschitz.report.html.tables import comparison_table, measures_table


def render(audit: Audit) -> str:
    """The whole report, to be written as UTF-8 without changing its line ends.

    A policy in the page forbids it to load anything: style and script are allowed by their hashes, pictures as data.
    Every name and text of the audit is shown as it is, whatever markup or marks of direction it holds.

    Args:
        audit: one model, or two on the same images.

    Returns:
        HTML.

    Raises:
        InvalidTypeError, InvalidInputError: no ``Audit``, no model or more than two, or a picture that is no PNG.

    Example:
        >>> from captum_lipschitz.report.content import ModelAudit
        >>> model = ModelAudit(
        ...     name="net", robustness=None, invalidation=None, fidelity=None, findings=(), images=(), left_out={}
        ... )
        >>> page = render(Audit(models=(model,), settings={}, versions={}, seconds=1.0))
        >>> "<h1>Audit of <bdi>net</bdi></h1>" in page
        True
    """
    if not isinstance(audit, Audit):
        raise InvalidTypeError(f"audit: expected an Audit, got {type(audit).__name__}")
    if len(audit.models) not in (1, 2):
        raise InvalidInputError(f"audit: expected one model or two, got {len(audit.models)}")
    style, script = _asset("page.css"), _asset("page.js")
    grid = Grid(audit)
    sections = _sections(audit, grid)
    links = [tag("li", tag("a", title, href=f"#{key}")) for key, title, _ in sections]
    body = [tag("section", tag("h2", title), content, id=key) for key, title, content in sections]
    return Template(_asset("page.html")).substitute(
        title=escaped(about.plain_title(audit)),
        heading=about.title(audit),
        summary=about.summary(audit),
        policy=_policy(style, script),
        style=style,
        script=script,
        links=joined(links),
        sections=joined(body, "\n"),
        symbols=grid.pictures.symbols(),
    )


def _sections(audit: Audit, grid: Grid) -> list[tuple[str, str, Html]]:
    """Key, title and content, in the page's order; a table that no model has is left out."""
    sections = [
        ("findings", "Findings", findings_section(audit)),
        ("robustness", "Accuracy and robustness", robustness_section(audit)),
    ]
    if len(audit.models) > 1 and audit.comparison:
        sections.append(("comparison", "Paired comparison", comparison_table(audit)))
    sections.append(("grid", "Explanations", grid.markup()))
    if any(model.invalidation for model in audit.models):
        sections.append(("invalidation", "Do attacks invalidate the explanations?", _tables(audit, "invalidation")))
    if any(model.fidelity for model in audit.models):
        sections.append(("fidelity", "How faithful are the explanations?", _tables(audit, "fidelity")))
    sections.append(("left-out", "What was left out", about.left_out(audit)))
    sections.append(("settings", "Settings and versions", about.settings(audit)))
    return sections


def _tables(audit: Audit, which: str) -> Html:
    """One model's table below the other's, each under the model's name where there are two."""
    parts: list[Html] = []
    for model in audit.models:
        table: Table | None = getattr(model, which)
        if len(audit.models) > 1:
            parts.append(tag("h3", named(model.name)))
        if table is None:
            parts.append(tag("p", "Not measured; the reason is under “What was left out”."))
        else:
            label = table.title if len(audit.models) == 1 else f"{table.title}: {model.name}"
            parts.append(measures_table(table, label=label))
    return joined(parts)


def _asset(name: str) -> str:
    return (files("captum_lipschitz.report") / "assets" / name).read_text(encoding="utf-8").replace("\r\n", "\n")


def _policy(style: str, script: str) -> str:
    allowed = {"style": style, "script": script}
    hashes = "; ".join(f"{kind}-src '{_hash(text)}'" for kind, text in allowed.items())
    return f"default-src 'none'; img-src data:; {hashes}; base-uri 'none'; form-action 'none'"


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
