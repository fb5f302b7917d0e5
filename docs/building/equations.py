"""MkDocs hook: equations become MathML, which browsers draw themselves, without a script."""

from __future__ import annotations

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """Convert what the extension ``arithmatex`` marked."""
    return _EQUATION.sub(_drawn, content)


def _drawn(equation: re.Match[str]) -> str:
    display = "inline" if equation[2] == "(" else "block"
    mathml: str = convert(html.unescape(equation[3]).strip(), display=display)
    return mathml if display == "inline" else f'<div class="equation">{mathml}</div>'
