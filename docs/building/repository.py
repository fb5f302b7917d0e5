"""MkDocs hook: files of the repository outside ``docs/`` that pages link to are part of the site.

Pages are written for those who read them in the repository, with relative links. Here a link that leaves ``docs/``
leads to a copy under ``repository/``: a Markdown file becomes a page, another file is copied, a folder is its README.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "repository/"
_PAGES = (
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "LICENSE", "benchmarks/*.md"),
    *("plugins/*/README.md", "examples/**/*.md", "examples/**/*.py", "examples/**/*.yaml", "examples/**/*.sh"),
)
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(?=[)\s#])")
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)
_TITLED_FENCE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring the repository's pages and the files that they may link to."""
    for path in sorted({path for pattern in _PAGES for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        files.append(File.generated(config, PREFIX + name, abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn links that hold in the repository into links that hold in the site; name the files that fences hold."""
    source = page.file.src_uri
    here = source.removeprefix(PREFIX) if source.startswith(PREFIX) else f"docs/{source}"

    def moved(link: re.Match[str]) -> str:
        return _in_site(link[1], here=here, source=source, files=files)

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(moved, markdown[end : fence.start()]), _TITLED_FENCE.sub(r'```\1 title="\2"', fence[0])]
        end = fence.end()
    return "".join([*parts, _LINK.sub(moved, markdown[end:])])


def _in_site(link: str, *, here: str, source: str, files: Files) -> str:
    """The link from the page ``source`` of the site to what ``link`` means in the repository's file ``here``."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(here), link))
    if (ROOT / target).is_dir():
        target += "/README.md"
    uri = target.removeprefix("docs/") if target.startswith("docs/") else PREFIX + target
    if uri.endswith(".ipynb") and files.get_file_from_path(uri.removesuffix("ipynb") + "md"):
        uri = uri.removesuffix("ipynb") + "md"
    if files.get_file_from_path(uri) is None:
        return link  # MkDocs says that it leads nowhere
    return posixpath.relpath(uri, posixpath.dirname(source) or ".")
