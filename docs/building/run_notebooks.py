"""Run the notebooks and keep their outputs: ``python docs/building/run_notebooks.py [NAME ...]``.

Cells run in a fresh kernel of this interpreter. What changes from run to run is not kept, so that the same outputs are
the same file.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "tutorials"


def run(path: Path, *, timeout: float = 300.0) -> nbformat.NotebookNode:
    """The notebook with its outputs; raises ``nbclient.exceptions.CellExecutionError`` where a cell does."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", record_timing=False, coalesce_streams=True
    )
    client.execute(cwd=str(path.parent))
    for cell in notebook.cells:
        cell.metadata.clear()
        if cell.cell_type == "code":  # warnings name this machine's folders
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("language_info", None)
    return notebook


def main() -> None:
    """Run those named, or all."""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if sys.argv[1:] and path.stem not in sys.argv[1:]:
            continue
        started = time.perf_counter()
        nbformat.write(run(path), path)
        sys.stdout.write(f"{path.name}: {time.perf_counter() - started:.0f} s\n")


if __name__ == "__main__":
    main()
