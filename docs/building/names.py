"""MkDocs hook: a public name in code font links to its place in the API reference."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

_REFERENCE = Path(__file__).resolve().parents[1] / "api"
_IDENTIFIER = re.compile(r"^::: (captum_lipschitz\.(?:\w+\.)*(\w+))$", re.MULTILINE)
_SKIPPED = re.compile(r"(<a\b.*?</a>|<pre\b.*?</pre>|<h\d\b.*?</h\d>|<autoref\b.*?</autoref>)", re.DOTALL)
_CODE = re.compile(r"<code>(\w+)((?:\(.*?\))?)</code>")
_UNMISTAKABLE = re.compile(r"[A-Z].*[a-z]|.*_")  # "get" and "draw" are words of other tongues too


def _identifiers() -> dict[str, str]:
    pages = [page.read_text(encoding="utf-8") for page in sorted(_REFERENCE.glob("*.md"))]
    found = [match for page in pages for match in _IDENTIFIER.findall(page)]
    return {name: identifier for identifier, name in found if _UNMISTAKABLE.match(name)}


_IDENTIFIERS = _identifiers()


def on_page_content(content: str, **_: Any) -> str:
    """Link each name that does not stand in a link, a heading or a block of code."""
    parts = _SKIPPED.split(content)
    return "".join(part if index % 2 else _CODE.sub(_linked, part) for index, part in enumerate(parts))


def _linked(code: re.Match[str]) -> str:
    if code[1] not in _IDENTIFIERS:
        return code[0]
    return f'<autoref identifier="{_IDENTIFIERS[code[1]]}">{code[0]}</autoref>'
