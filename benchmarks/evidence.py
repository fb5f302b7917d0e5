"""The tables of docs/evidence.md from an audit's report.json, put between the page's two marks.

captum-lipschitz audit ... --output report && python benchmarks/evidence.py report/report.json docs/evidence.md
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from captum_lipschitz._files import write_whole

BEGIN, END = "<!-- tables: begin -->", "<!-- tables: end -->"
_SHORT = {"supported": "holds", "contradicted": "**does not hold**", "undecided": "undecided"}


def main() -> None:
    """Replace what is between the marks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("report", type=Path, help="report.json of an audit, of one model or two")
    parser.add_argument("page", type=Path, help="Markdown with the two marks")
    parsed = parser.parse_args()
    report = json.loads(parsed.report.read_text(encoding="utf-8"))
    before, found, rest = parsed.page.read_text(encoding="utf-8").partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not found or not ended:
        parser.error(f"{parsed.page}: expected the lines {BEGIN} and {END}")
    text = f"{before}{BEGIN}\n\n" + "\n\n".join(blocks(report)) + f"\n\n{END}{after}"
    write_whole(parsed.page, text.encode())


def blocks(report: dict[str, Any]) -> Iterator[str]:
    """Paragraphs and tables, one model after the other."""
    models = report["models"]
    yield _areas(models)
    for model in models:
        yield f"### {model['name']}: what the figures say"
        yield _findings(model["findings"])
        for name in ("invalidation", "fidelity"):
            if model[name] is not None:
                yield f"### {model['name']}: {model[name]['title'].lower()}"
                yield _table(model[name])
        if model["left_out"]:
            yield "Left out: " + "; ".join(f"{what}: {why}" for what, why in model["left_out"].items()) + "."


def _areas(models: list[dict[str, Any]]) -> str:
    rows = ["| network | accuracy | attack ARA (RMSE) | doubts |", "| --- | --- | --- | --- |"]
    for model in models:
        found = model["robustness"]
        low, high = found["ara"]["interval"]
        area = f"{_number(found['ara']['area'])} [{_number(low)}, {_number(high)}]"
        rows.append(f"| {model['name']} | {_number(found['accuracy'])} | {area} | {len(found['doubts']) or 'none'} |")
    return "\n".join(rows)


def _findings(findings: list[dict[str, Any]]) -> str:
    rows = ["| claim | | why |", "| --- | --- | --- |"]
    rows += [f"| {one['claim']} | {_SHORT[one['support']]} | {one['text']} |" for one in findings]
    shown = "\n".join(rows)
    return f"<details><summary>All {len(findings)}, with their figures</summary>\n\n{shown}\n\n</details>"


def _table(table: dict[str, Any]) -> str:
    measures = table["measures"]
    arrows = {"higher": " (higher is better)", "lower": " (lower is better)", None: ""}
    head = ["method", *(measure["title"] + arrows[measure["better"]] for measure in measures)]
    rows = ["| " + " | ".join(head) + " |", "| --- " * len(head) + "|"]
    for method, cells in table["rows"].items():
        rows.append("| " + " | ".join([method, *(_cell(cells.get(measure["key"])) for measure in measures)]) + " |")
    told = ""
    if table["compared_with"]:
        told = (
            f"\n\nBelow a mean its interval; ▲ above and ▼ below that of {table['compared_with']} on the same images, "
            "by more than the smallest difference that matters."
        )
    return "\n".join(rows) + told


def _cell(cell: dict[str, Any] | None) -> str:
    if cell is None or cell["value"]["mean"] is None:
        return "-"
    low, high = cell["value"]["interval"]
    sign = {"above": " ▲", "below": " ▼"}.get(cell["verdict"] or "", "")
    return f"{_number(cell['value']['mean'])}{sign}<br>{_number(low)} to {_number(high)}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"


if __name__ == "__main__":
    main()
