"""The audit's data beside the page: everything as JSON, and long CSV tables, one row for each figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.metrics.estimates import Estimate
from captum_lipschitz.report.content import Audit, ModelAudit, Picture, Table

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_ESTIMATE = ("mean", "low", "high", "images", "left_out")


def audit_json(audit: Audit) -> dict[str, Any]:
    """Everything but the pictures' bytes, as JSON's types.

    Args:
        audit: what was found.

    Returns:
        Dictionaries named as ``content.py`` names their fields; undefined and infinite numbers are ``None``, tuples
        lists, keys strings. A picture is its text and its size.

    Raises:
        InvalidTypeError: no ``Audit``.

    Example:
        >>> audit_json(Audit(models=(), settings={"limit": math.inf}, versions={}, seconds=1.0))["settings"]
        {'limit': None}
    """
    _check(audit)
    plain: dict[str, Any] = _plain(audit)
    return plain


def csv_files(audit: Audit) -> dict[str, str]:
    """Files for a spreadsheet or pandas, by name; one that would hold no row is left out.

    ``findings.csv``, ``robustness.csv``, ``curve.csv``, ``distances.csv``, ``invalidation.csv``, ``fidelity.csv``,
    ``values.csv`` (one row for each image, method and measure), ``comparison.csv`` and ``left_out.csv``. Each says
    whose row it is in the column ``model``. An undefined number is empty, an infinite one ``inf``. Text that a
    spreadsheet would take for a formula has an apostrophe before it.

    Args:
        audit: what was found.

    Returns:
        From the file's name to its content, lines ended by a line feed.

    Raises:
        InvalidTypeError: no ``Audit``.

    Example:
        >>> csv_files(Audit(models=(), settings={}, versions={}, seconds=1.0))
        {}
    """
    _check(audit)
    estimated = ("model", "method", "measure", *_ESTIMATE)
    differing = tuple(f"difference_{name}" for name in _ESTIMATE)
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[Any]]]] = {
        "findings.csv": (("model", "claim", "support", "text", "figure", *_ESTIMATE), _findings(audit)),
        "robustness.csv": (("model", "figure", "value"), _robustness(audit)),
        "curve.csv": (("model", "rho", "accuracy"), _curves(audit)),
        "distances.csv": (("model", "image", "label", "correct", "distance"), _distances(audit)),
        "invalidation.csv": (
            (*estimated, "better", "compared_with", *differing, "verdict"),
            _cells(audit, "invalidation"),
        ),
        "fidelity.csv": ((*estimated, "better", "compared_with", *differing, "verdict"), _cells(audit, "fidelity")),
        "values.csv": (("model", "table", "method", "measure", "image", "value"), _values(audit)),
        "comparison.csv": (("what", *_ESTIMATE), ((what, *_row(one)) for what, one in audit.comparison.items())),
        "left_out.csv": (("model", "what", "why"), _left_out(audit)),
    }
    written = {name: _written(head, list(rows)) for name, (head, rows) in tables.items()}
    return {name: text for name, text in written.items() if text}


def _check(audit: object) -> None:
    if not isinstance(audit, Audit):
        raise InvalidTypeError(f"audit: expected an Audit, got {type(audit).__name__}")


def _plain(value: Any) -> Any:
    """Itself, as JSON knows it."""
    if is_dataclass(value):
        kept = [field.name for field in fields(value) if not (isinstance(value, Picture) and field.name == "png")]
        return {name: _plain(getattr(value, name)) for name in kept}
    if isinstance(value, Mapping):
        return {_encodable(str(key)): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (bool, int, float)):
        return value
    return _encodable(str(value))


def _encodable(text: str) -> str:
    """A name of a file that is no UTF-8 must not keep the report from being written."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def _written(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    if not rows:
        return ""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(head)
    writer.writerows([_field(value) for value in row] for row in rows)
    return file.getvalue()


def _field(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        text = _encodable(value).replace("\0", "")
        return f"'{text}" if text.startswith(_FORMULA) else text
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _row(found: Estimate | None) -> tuple[Any, ...]:
    return (None,) * len(_ESTIMATE) if found is None else (found.mean, *found.interval, found.images, found.left_out)


def _findings(audit: Audit) -> Iterator[Sequence[Any]]:
    """A row for each figure; a finding without one has a row too."""
    for model in audit.models:
        for one in model.findings:
            start = (model.name, one.claim, one.support, one.text)
            if not one.figures:
                yield (*start, None, *_row(None))
            for name, figure in one.figures.items():
                yield (*start, name, *_row(figure))


def _robustness(audit: Audit) -> Iterator[Sequence[Any]]:
    for model in audit.models:
        if model.robustness is None:
            continue
        yield model.name, "accuracy", model.robustness.accuracy
        for name, value in model.robustness.ara.items():
            if name == "interval":
                low, high = value or (None, None)
                yield model.name, "area_low", low
                yield model.name, "area_high", high
            elif value is None or isinstance(value, (str, int, float)):
                yield model.name, name, value
        for doubt in model.robustness.doubts:
            yield model.name, "doubt", doubt


def _curves(audit: Audit) -> Iterator[Sequence[Any]]:
    for model in audit.models:
        if model.robustness is not None:
            points = zip(model.robustness.curve_rho, model.robustness.curve_accuracy, strict=True)
            yield from ((model.name, rho, accuracy) for rho, accuracy in points)


def _distances(audit: Audit) -> Iterator[Sequence[Any]]:
    """By image; ``AraResult.to_dict()`` says ``None`` for an image that no attack changed."""
    for model in audit.models:
        ara = model.robustness.ara if model.robustness is not None else {}
        distances = ara.get("distances") or []
        if not distances:  # no attack could be run
            continue
        labels, correct = (ara.get(name) or [None] * len(distances) for name in ("labels", "correct"))
        for i, (distance, label, right) in enumerate(zip(distances, labels, correct, strict=True)):
            shown = str(label) if isinstance(label, (list, tuple)) else label
            yield model.name, i, shown, right, math.inf if distance is None else distance


def _tables(model: ModelAudit) -> Iterator[tuple[str, Table]]:
    for name, table in (("invalidation", model.invalidation), ("fidelity", model.fidelity)):
        if table is not None:
            yield name, table


def _cells(audit: Audit, which: str) -> Iterator[Sequence[Any]]:
    for model in audit.models:
        for name, table in _tables(model):
            better = {measure.key: measure.better for measure in table.measures}
            for method, cells in table.rows.items() if name == which else ():
                for key, cell in cells.items():
                    start = (model.name, method, key, *_row(cell.value), better.get(key))
                    compared = table.compared_with if cell.difference is not None else None
                    yield (*start, compared, *_row(cell.difference), cell.verdict)


def _values(audit: Audit) -> Iterator[Sequence[Any]]:
    for model in audit.models:
        for name, table in _tables(model):
            for method, cells in table.rows.items():
                for key, cell in cells.items():
                    yield from ((model.name, name, method, key, i, value) for i, value in enumerate(cell.values))


def _left_out(audit: Audit) -> Iterator[Sequence[Any]]:
    for model in audit.models:
        yield from ((model.name, what, why) for what, why in model.left_out.items())
