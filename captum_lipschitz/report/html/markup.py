"""Markup that cannot be broken by what is put into it: plain strings are escaped, always."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

_VOID = {"img", "input", "meta", "link", "br", "col", "wbr"}
# Controls, lone surrogates (names of files that are no UTF-8) and the marks that turn the direction of what follows.
_UNPRINTABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]"
)

_WORDS = re.compile("(?<=[a-z])(?=[A-Z])|(?<=[_/.-])")


class Html(str):
    """Markup that is right as it stands. Only this module makes it from text."""

    __slots__ = ()


def visible(text: str) -> str:
    """``text`` with characters that cannot be seen, or that turn the direction of writing, named in its place.

    Example:
        >>> visible("a" + chr(0x202E) + "b")
        'a⟨U+202E⟩b'
    """
    return _UNPRINTABLE.sub(lambda found: f"⟨U+{ord(found[0]):04X}⟩", text)


def escaped(text: str) -> Html:
    """Markup that shows ``text``; ``Html`` is left as it is.

    Example:
        >>> print(escaped("<b>"))
        &lt;b&gt;
    """
    return text if isinstance(text, Html) else Html(html.escape(visible(text), quote=True))


def tag(name: str, *children: str, **attributes: str | float | bool | None) -> Html:
    """An element: children and values of attributes are escaped, unless they are ``Html`` children.

    Args:
        name: of the element.
        *children: its content.
        **attributes: ``class_`` is ``class``, ``data_value`` is ``data-value``; ``True`` is a bare attribute, ``None``
            and ``False`` leave it out.

    Example:
        >>> print(tag("a", "x & y", href="#top", hidden=True, title=None))
        <a href="#top" hidden>x &amp; y</a>
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Html(f"<{name}{written}>")
    return Html(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str], between: str = "") -> Html:
    """All ``parts``, escaped unless they are ``Html``, one after another."""
    return Html(escaped(between).join(escaped(part) for part in parts))


def named(text: str) -> Html:
    """A name from outside, which may be written from right to left, kept apart from the text around it."""
    return tag("bdi", text)


def heading_name(name: str) -> Html:
    """A name over a narrow column, which may break where a new word of it begins: ``"Integrated|Gradients"``."""
    return tag("bdi", joined(_WORDS.split(visible(name)), tag("wbr")))


def unseen(text: str) -> Html:
    """Text for screen readers only."""
    return tag("span", text, class_="unseen")


def scrolled(table: Html, label: str, *, class_: str = "") -> Html:
    """A table that may be wider than the screen: it scrolls by itself, by keyboard too, and the page does not."""
    return tag("div", table, class_=f"scroll {class_}".strip(), role="region", aria_label=label, tabindex="0")


def _attribute(key: str, value: str | float | bool | None) -> str:  # noqa: FBT001 (a value of HTML)
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    text = str(value)
    return f' {name}="{html.escape(visible(text), quote=True)}"'
