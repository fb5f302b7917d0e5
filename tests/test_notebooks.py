"""The tutorials' notebooks: their outputs are kept, without errors, and they run."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
NOTEBOOKS = sorted(path.name for path in FOLDER.glob("*.ipynb"))


def _cells(name: str) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def _kinds(cell: dict[str, Any]) -> list[str]:
    return sorted({output["output_type"] for output in cell["outputs"]})


def test_there_are_three() -> None:
    assert NOTEBOOKS == ["explain.ipynb", "measure.ipynb", "train.ipynb"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_outputs_are_kept(name: str) -> None:
    cells = _cells(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert any(output.get("name") == "stdout" for output in outputs)
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_first_cell_says_what_it_is(name: str) -> None:
    first = json.loads((FOLDER / name).read_text(encoding="utf-8"))["cells"][0]
    assert first["cell_type"] == "markdown"
    assert "".join(first["source"]).startswith("# ")


@pytest.mark.slow
@pytest.mark.whole_run
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_it_runs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ipykernel", reason="ipykernel is not installed")
    monkeypatch.syspath_prepend(str(FOLDER.parent / "building"))
    monkeypatch.delitem(sys.modules, "run_notebooks", raising=False)
    import run_notebooks

    ran = run_notebooks.run(FOLDER / name, timeout=600)
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert [_kinds(cell) for cell in cells] == [_kinds(cell) for cell in _cells(name)]
