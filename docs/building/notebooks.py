"""MkDocs hook: a notebook becomes a page, from its cells and kept outputs alone; nothing runs here."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Beside each notebook, which stays to be downloaded, a page and its pictures."""
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        stem = notebook.src_uri.removesuffix(".ipynb")
        cells = json.loads(Path(str(notebook.abs_src_path)).read_text(encoding="utf-8"))["cells"]
        pictures: dict[str, bytes] = {}
        parts = [_shown(cell, stem.rpartition("/")[2], pictures) for cell in cells]
        name = notebook.src_uri.rpartition("/")[2]
        needs = "It runs in Jupyter, with the library and its extra `demo` installed."
        parts.insert(1, f"*This page is a notebook: [{name}]({name}){{ download }}. {needs}*")
        files.append(File.generated(config, f"{stem}.md", content="\n\n".join(parts) + "\n"))
        for picture, content in pictures.items():
            files.append(File.generated(config, f"{stem.rpartition('/')[0]}/{picture}", content=content))
    return files


def _shown(cell: dict[str, Any], stem: str, pictures: dict[str, bytes]) -> str:
    """One cell as Markdown; the pictures of its outputs are added to ``pictures``."""
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        return source
    parts = [f"```python\n{source}\n```"]
    for output in cell["outputs"]:
        data = output.get("data", {})
        if "image/png" in data:
            name = f"{stem}-{len(pictures) + 1}.png"
            pictures[name] = base64.b64decode("".join(data["image/png"]))
            parts.append(f"![Output of the cell above]({name})")
        else:
            text = "".join(output.get("text", data.get("text/plain", "")))
            parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts)
