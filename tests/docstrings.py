"""Docstrings in Google style taken apart, and the public things that have them, as the API pages name them."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTIONS = ("Args", "Attributes", "Returns", "Yields", "Raises", "Warns", "Example", "References")
_HEADING = re.compile(rf"^({'|'.join(SECTIONS)}):$", re.MULTILINE)


def sections(docstring: str) -> dict[str, str]:
    """Each section's text, and that before the first one under ``""``."""
    parts = _HEADING.split(inspect.cleandoc(docstring))
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def entries(section: str) -> list[str]:
    """The names that a section of ``name: text`` entries explains; ``a, b: text`` explains two."""
    heads = re.findall(r"^    ([\w*]+(?:, [\w*]+)*)(?: \(.*?\))?:", section, flags=re.MULTILINE)
    return [name.lstrip("*") for head in heads for name in head.split(", ")]


def identifiers() -> list[str]:
    """What the API pages show, ``captum_lipschitz.RMSE`` and so on."""
    pages = sorted((ROOT / "docs" / "api").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text("utf-8"), flags=re.MULTILINE)]


def resolve(identifier: str) -> object:
    """The thing itself."""
    module, _, name = identifier.rpartition(".")
    return getattr(import_module(module), name)


def callables() -> Iterator[tuple[str, object, str]]:
    """Name, function and docstring of every public function, method and constructor (whose docstring is the class's).

    A method without a docstring of its own inherits it; one of another library is that library's business.
    """
    for identifier in identifiers():
        thing = resolve(identifier)
        if inspect.isfunction(thing):
            yield identifier, thing, thing.__doc__ or ""
        elif inspect.isclass(thing):
            constructor = vars(thing).get("__init__")
            if inspect.isfunction(constructor) and not hasattr(thing, "__dataclass_fields__"):
                yield identifier, constructor, thing.__doc__ or ""
            for name, member in vars(thing).items():
                function = getattr(member, "__func__", member)
                public = not name.startswith("_") or name == "__call__"
                if public and inspect.isfunction(function) and function.__doc__:
                    yield f"{identifier}.{name}", function, function.__doc__


def parameters(function: object) -> list[str]:
    """Those that a caller gives, by name."""
    names = list(inspect.signature(function).parameters)  # type: ignore[arg-type]
    return [name for name in names if name not in ("self", "cls") and not name.startswith("_")]


def returns_something(function: object) -> bool:
    """Whether the annotation says so."""
    answer = getattr(function, "__annotations__", {}).get("return")
    return answer not in (None, "None", "NoReturn") and getattr(function, "__name__", "") != "__init__"


def raises_something(function: object) -> bool:
    """Whether there is a ``raise SomeError(...)`` in its own body."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))  # type: ignore[arg-type]
    return any(isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) for node in ast.walk(tree))
