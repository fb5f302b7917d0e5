"""MkDocs hook: files of the repository outside ``docs/`` that pages link to are part of the site.

Pages are written for those who read them in the repository, with relative links. Here a link that leaves ``docs/``
leads to a copy under ``repository/``: a Markdown file becomes a page, whose own links are followed in turn, another
file is copied, a folder is its README. The navigation may name pages under ``repository/`` as well.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PREFIX = "repository/"
_LINK = re.compile(r"(?<=\]\()(?!\w+:|#|/)([^)\s#]+)(?=[)\s#])")
_FENCE = re.compile(r"^(```|~~~).*?^\1\s*$", re.DOTALL | re.MULTILINE)
_TITLED_FENCE = re.compile(r"^```(\w+) (\S+)$", re.MULTILINE)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave pages out of the navigation that are still to be written: those that ``extra: awaited`` lists."""
    absent = {uri for uri in config.extra.get("awaited", []) if not (ROOT / _path(uri)).is_file()}
    config.nav = _without(config.nav, absent)
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Bring what the navigation names and what pages link to, and what those link to."""
    named = [uri for uri in _uris(config.nav) if uri.startswith(PREFIX)]
    waiting = [file.src_uri for file in files if file.src_uri.endswith(".md")] + named
    while waiting:
        uri = waiting.pop()
        path = ROOT / _path(uri)
        if files.get_file_from_path(uri) is None and path.is_file():
            files.append(File.generated(config, uri, abs_src_path=str(path)))
        if uri.endswith(".md") and path.is_file():
            targets = {_target(link, _path(uri)) for link in _LINK.findall(path.read_text(encoding="utf-8"))}
            waiting += [uri for uri in sorted(targets) if files.get_file_from_path(uri) is None and _there(uri)]
    return files


def on_page_markdown(markdown: str, page: Any, files: Files, **_: Any) -> str:
    """Turn links that hold in the repository into links that hold in the site; name the files that fences hold."""
    source = page.file.src_uri

    def moved(link: re.Match[str]) -> str:
        uri = _target(link[1], _path(source))
        page_of_notebook = re.sub(r"\.ipynb$", ".md", uri)
        if page_of_notebook != source and files.get_file_from_path(page_of_notebook):  # which links to the notebook
            uri = page_of_notebook
        if files.get_file_from_path(uri) is None:
            return link[1]  # MkDocs says that it leads nowhere
        return posixpath.relpath(uri, posixpath.dirname(source) or ".")

    parts, end = [], 0
    for fence in _FENCE.finditer(markdown):
        parts += [_LINK.sub(moved, markdown[end : fence.start()]), _TITLED_FENCE.sub(r'```\1 title="\2"', fence[0])]
        end = fence.end()
    return "".join([*parts, _LINK.sub(moved, markdown[end:])])


def _path(uri: str) -> str:
    """Where in the repository a page of the site comes from."""
    return uri.removeprefix(PREFIX) if uri.startswith(PREFIX) else f"docs/{uri}"


def _target(link: str, path: str) -> str:
    """What a link in the repository's file ``path`` is in the site."""
    target = posixpath.normpath(posixpath.join(posixpath.dirname(path), link))
    if (ROOT / target).is_dir():
        target += "/README.md"
    return target.removeprefix("docs/") if target.startswith("docs/") else PREFIX + target


def _there(uri: str) -> bool:
    return uri.startswith(PREFIX) and (ROOT / _path(uri)).is_file()


def _uris(nav: Any) -> Iterator[str]:
    if isinstance(nav, str):
        yield nav
    for item in nav.values() if isinstance(nav, dict) else nav if isinstance(nav, list) else ():
        yield from _uris(item)


def _without(nav: Any, absent: set[str]) -> Any:
    if isinstance(nav, list):
        return [kept for kept in (_without(item, absent) for item in nav) if kept]
    if isinstance(nav, dict):
        return {name: kept for name, kept in ((name, _without(item, absent)) for name, item in nav.items()) if kept}
    return None if nav in absent else nav
