"""What .ci/audit makes of pip-audit's answers: a database that was not reached must not look like a clean one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).resolve().parents[1] / ".ci" / "audited.py"
CLEAN: dict[str, Any] = {"name": "torch", "version": "2.6", "vulns": []}
FOUND = {"name": "idna", "version": "2.10", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3.7"]}, {"id": "GHSA-2"}]}
SKIPPED = {"name": "captum", "skip_reason": "captum could not be audited"}


@pytest.fixture
def audited() -> Any:
    spec = importlib.util.spec_from_file_location("ci_audited", SOURCE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("packages", "status", "last"),
    [
        ([CLEAN], 0, "1 packages looked up, 0 known vulnerabilities, 0 not looked up"),
        ([CLEAN, FOUND], 1, "2 packages looked up, 2 known vulnerabilities, 0 not looked up"),
        ([CLEAN, SKIPPED], 2, "1 packages looked up, 0 known vulnerabilities, 1 not looked up"),
        ([FOUND, SKIPPED], 2, "1 packages looked up, 2 known vulnerabilities, 1 not looked up"),
        ([], 2, "0 packages looked up, 0 known vulnerabilities, 0 not looked up"),
    ],
)
def test_the_status_is_that_of_the_worst(
    audited: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], packages: list[Any], status: int, last: str
) -> None:
    path = tmp_path / "answer"
    path.write_text(json.dumps({"dependencies": packages}))
    assert audited.main(path) == status
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == last
    if FOUND in packages:
        assert lines[:2] == ["idna 2.10: PYSEC-1, mended in 3.7", "idna 2.10: GHSA-2, mended in no version yet"]


@pytest.mark.parametrize("answer", ["", "[]", "{}", '{"dependencies": 3}', '{"dependencies": ["a"]}', None])
def test_no_answer_is_no_clean_one(audited: Any, tmp_path: Path, answer: str | None) -> None:
    path = tmp_path / "answer"
    if answer is not None:
        path.write_text(answer)
    assert audited.main(path) == 2
