"""Measures by method: means, intervals, and what differs from the method compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping

from captum_lipschitz.metrics.estimates import Estimate
from captum_lipschitz.report.content import Audit, Cell, Measure, Table
from captum_lipschitz.report.html.figures import (
    in_column,
    interval,
    missing,
    number,
    shared_decimals,
    verdict_in_words,
    written,
)
from captum_lipschitz.report.html.markup import Html, heading_name, joined, named, scrolled, tag

_BETTER = {"higher": "Higher is better.", "lower": "Lower is better.", None: "Neither way is better by itself."}
_FIT = 8  # columns that a wide screen holds without scrolling


class _Column:
    """One measure's cells, all with the same number of decimals where that can be."""

    def __init__(self, table: Table, measure: Measure) -> None:
        cells = [row[measure.key] for row in table.rows.values() if measure.key in row]
        self._better = measure.better
        self._decimals = shared_decimals(cell.value for cell in cells)
        self._of_differences = shared_decimals(cell.difference for cell in cells)

    def cell(self, cell: Cell | None) -> Html:
        if cell is None:
            return tag("td", missing("not available"), data_value="")
        value = written(cell.value, column=self._decimals)
        return tag("td", value, *self._difference(cell), data_value=_sortable(cell.value.mean))

    def _difference(self, cell: Cell) -> list[str]:
        found = cell.difference
        if found is None:
            return []
        word, look = verdict_in_words(cell.verdict or found.compared_with(0.0), self._better)
        decimals = in_column(found, self._of_differences)
        mean = number(found.mean, decimals=decimals, signed=True)
        ends = interval(*found.interval, decimals=decimals, signed=True)
        difference = tag("span", mean, tag("span", f" ({ends})", class_="ends"), class_="difference")
        return [" ", difference, " ", tag("span", word, class_=f"verdict {look}")]


def measures_table(table: Table, *, label: str) -> Html:
    """A table whose rows can be sorted, with each measure explained below.

    Args:
        table: what to show.
        label: names the table for screen readers, also beside a second model's.
    """
    text = [tag("p", table.text, " ", *_reading(table))]
    columns = {measure.key: _Column(table, measure) for measure in table.measures}
    rows = [_row(name, cells, table, columns) for name, cells in table.rows.items()]
    heads = [_head(measure) for measure in table.measures]
    head = tag("tr", tag("th", "Method", scope="col", data_first="ascending"), *heads)
    caption = tag("caption", label, class_="unseen")
    body = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="measures sortable")
    fits = "fits" if len(table.measures) <= _FIT else ""
    return joined([*text, scrolled(body, label, class_=fits), _explained(table.measures)])


def comparison_table(audit: Audit) -> Html:
    """Second model minus first, on the same images, with the verdict in words."""
    first, second = audit.models[0].name, audit.models[1].name
    rows = [
        tag(
            "tr",
            tag("th", named(what), scope="row"),
            tag("td", written(found, signed=True), data_value=_sortable(found.mean)),
            tag("td", _comparison_in_words(found, first, second)),
            tag("td", str(found.images), data_value=found.images),
        )
        for what, found in audit.comparison.items()
    ]
    titles = ("What", "Difference and 95% interval", "In words", "Images")
    head = tag("tr", *(tag("th", title, scope="col", data_first="ascending") for title in titles))
    caption = tag("caption", "Paired comparison of the two models", class_="unseen")
    table = tag("table", caption, tag("thead", head), tag("tbody", *rows), class_="comparison sortable")
    text = tag(
        "p",
        *(named(second), " minus ", named(first)),
        ", on the same images. What varies with the image and not with the model cancels out, so that fewer images "
        "are needed than for two separate intervals.",
    )
    return joined([text, scrolled(table, "Paired comparison of the two models")])


def _reading(table: Table) -> list[str]:
    shared = "Each figure is the mean over images with its 95% interval."
    if table.compared_with is None:
        return [shared]
    with_it = named(table.compared_with)
    return [
        f"{shared} Below it, the difference from ",
        with_it,
        " on the same images, its interval, and what that says: better or worse than ",
        with_it,
        " where the whole interval lies beyond the smallest difference that matters (0.01 for measures of fidelity",
        " that end at 1, else 0), “cannot tell” where it does not.",
    ]


def _head(measure: Measure) -> Html:
    first = "ascending" if measure.better == "lower" else "descending"
    return tag("th", measure.title, scope="col", data_first=first)


def _row(name: str, cells: Mapping[str, Cell], table: Table, columns: Mapping[str, _Column]) -> Html:
    reference = name == table.compared_with
    mark = [" ", tag("span", "compared with", class_="reference")] if reference else []
    head = tag("th", heading_name(name), *mark, scope="row", data_value=name)
    return tag("tr", head, *(column.cell(cells.get(key)) for key, column in columns.items()))


def _explained(measures: tuple[Measure, ...]) -> Html:
    items = [
        tag("div", tag("dt", measure.title), tag("dd", measure.text, " ", tag("em", _BETTER[measure.better])))
        for measure in measures
    ]
    return tag("dl", *items, class_="explained")


def _sortable(value: float) -> str:
    """For the script: nothing where there is no number, so that it comes last either way."""
    return "" if math.isnan(value) else repr(value)


def _comparison_in_words(found: Estimate, first: str, second: str) -> Html:
    verdict = found.compared_with(0.0)
    if verdict in ("above", "below"):
        side = "higher" if verdict == "above" else "lower"
        return joined([f"{side} for ", named(second), " than for ", named(first)])
    return joined(["too few images to tell" if verdict == "too few" else "cannot tell"])
