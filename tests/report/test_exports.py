"""The data beside the page: JSON that any reader takes, CSV that no spreadsheet runs."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest
from audits import METHODS, RHOS, hostile_audit, made_up_audit

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.report.content import Audit
from captum_lipschitz.report.exports import audit_json, csv_files


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


@pytest.mark.parametrize("audit", [made_up_audit(), hostile_audit()])
def test_json_is_strict_and_comes_back(audit: Audit) -> None:
    plain = audit_json(audit)
    written = json.dumps(plain, allow_nan=False, ensure_ascii=False)
    assert json.loads(written.encode("utf-8")) == plain


def test_json_holds_every_value_and_no_picture() -> None:
    audit = made_up_audit(images=1, explained=1)
    plain = audit_json(audit)
    model = plain["models"][0]
    cell = model["fidelity"]["rows"]["Saliency"]["insertion"]
    assert cell["values"][0] is None
    assert cell["values"][1] == audit.models[0].fidelity.rows["Saliency"]["insertion"].values[1]
    (explained,) = model["images"][0]["explanations"].values()
    assert [one["rho"] for one in explained["Adversarial"]] == list(RHOS)
    assert set(explained["Saliency"][0]) == {"text", "rho"}


def test_csv_files_hold_what_the_page_shows() -> None:
    audit = made_up_audit(models=("standard", "robust"))
    files = csv_files(audit)
    fidelity = audit.models[1].fidelity
    found = [row for row in rows(files["fidelity.csv"]) if row["model"] == "robust" and row["method"] == "LIME"]
    assert [row["measure"] for row in found] == [measure.key for measure in fidelity.measures]
    cell = fidelity.rows["LIME"]["deletion"]
    (row,) = [row for row in found if row["measure"] == "deletion"]
    assert float(row["mean"]) == cell.value.mean
    assert (float(row["difference_low"]), float(row["difference_high"])) == cell.difference.interval
    assert row["compared_with"] == METHODS[0]
    assert row["verdict"] == cell.verdict
    assert len(rows(files["comparison.csv"])) == len(audit.comparison)
    assert {row["model"] for row in rows(files["curve.csv"])} == {"standard", "robust"}
    assert len(rows(files["left_out.csv"])) == 4


def test_values_by_image_have_gaps_where_there_is_no_value() -> None:
    files = csv_files(made_up_audit())
    found = [row for row in rows(files["values.csv"]) if (row["method"], row["measure"]) == ("Saliency", "deletion")]
    assert [row["image"] for row in found] == [str(i) for i in range(32)]
    assert [row["value"] == "" for row in found] == [True] + [False] * 31


def test_what_no_attack_changed_is_infinitely_far() -> None:
    audit = made_up_audit()
    first = audit.models[0]
    ara = {**first.robustness.ara, "distances": [0.5, None], "labels": [1, 2], "correct": [True, False]}
    changed = replace(first, robustness=replace(first.robustness, ara=ara))
    found = rows(csv_files(replace(audit, models=(changed,)))["distances.csv"])
    assert [row["distance"] for row in found] == ["0.5", "inf"]
    assert [row["correct"] for row in found] == ["true", "false"]


@pytest.mark.parametrize("name", ["=1+1", "@SUM(A1)", "+cmd", "-2", "\t=1"])
def test_no_text_is_a_formula(name: str) -> None:
    audit = made_up_audit()
    files = csv_files(replace(audit, models=(replace(audit.models[0], name=name),)))
    assert all(row["model"] == "'" + name for row in rows(files["fidelity.csv"]))
    assert any(float(row["mean"]) > 0 for row in rows(files["fidelity.csv"]))


def test_hostile_names_can_be_written_and_read() -> None:
    for name, text in csv_files(hostile_audit()).items():
        assert rows(text.encode("utf-8").decode("utf-8")), name


def test_an_empty_audit_has_no_files_and_no_audit_is_refused() -> None:
    assert csv_files(Audit(models=(), settings={}, versions={}, seconds=math.nan)) == {}
    for function in (audit_json, csv_files):
        with pytest.raises(InvalidTypeError, match="audit: expected an Audit"):
            function(None)
