"""The files that an audit leaves: the page, the same figures as JSON, and as CSV."""

from __future__ import annotations

from pathlib import Path

from captum_lipschitz._files import write_whole
from captum_lipschitz.measure.files import as_json
from captum_lipschitz.report.content import Audit
from captum_lipschitz.report.exports import audit_json, csv_files
from captum_lipschitz.report.page import render

PAGE, REPORT = "report.html", "report.json"
_TABLES = (
    "findings", "robustness", "curve", "distances", "invalidation", "fidelity", "values", "comparison", "left_out"
)  # fmt: skip


def write_report(folder: Path, audit: Audit) -> Path:
    """Write ``report.html``, ``report.json`` and the CSV files, each whole; returns the page's path.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    contents = {REPORT: as_json(audit_json(audit)), **{name: t.encode() for name, t in csv_files(audit).items()}}
    for name in _TABLES:
        if f"{name}.csv" not in contents:
            (folder / f"{name}.csv").unlink(missing_ok=True)  # of an earlier run that had more tables
    for name, content in contents.items():
        write_whole(folder / name, content)
    write_whole(folder / PAGE, render(audit).encode())
    return folder / PAGE


def remove_report(folder: Path) -> None:
    """Remove what an earlier run's ``write_report`` left."""
    for name in (PAGE, REPORT, *(f"{name}.csv" for name in _TABLES)):
        (folder / name).unlink(missing_ok=True)
