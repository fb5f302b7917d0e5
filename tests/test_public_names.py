"""What docs/stability.md promises: public names and their parameters, written down, so that none changes unnoticed."""

from __future__ import annotations

import importlib
import inspect
import os
import re
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parents[1]
RECORD = Path(__file__).with_name("public_names.txt")
PAGE = ROOT / "docs" / "stability.md"


def _promised() -> list[str]:
    """The modules of the page's table."""
    return re.findall(r"^\| `(captum_lipschitz[\w.]*)` \|", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)


def _names(module: ModuleType) -> list[str]:
    if hasattr(module, "__all__"):
        return sorted(module.__all__)
    own = (name for name, thing in vars(module).items() if getattr(thing, "__module__", None) == module.__name__)
    return sorted(name for name in own if not name.startswith("_"))


def _described(module: ModuleType, name: str) -> list[str]:
    """The name with its parameters, and those of a class's public methods, without defaults and types."""
    thing = getattr(module, name)
    place = f"{module.__name__}.{name}"
    if not inspect.isclass(thing):
        return [place + (_parameters(thing) if inspect.isfunction(thing) else "")]
    exception = issubclass(thing, BaseException)
    lines = [place + ("" if exception or inspect.isabstract(thing) else _parameters(thing))]
    for method, function in inspect.getmembers(thing, inspect.isroutine):
        inherited = not str(getattr(function, "__module__", None)).startswith("captum_lipschitz.")
        if not method.startswith("_") and not inherited and not exception:
            lines.append(f"{place}.{method}{_parameters(function)}")
    return lines


def _parameters(thing: object) -> str:
    signs = {inspect.Parameter.VAR_POSITIONAL: "*", inspect.Parameter.VAR_KEYWORD: "**"}
    parameters = inspect.signature(thing).parameters.values()  # type: ignore[arg-type]
    words, keyword_only = [], False
    for parameter in parameters:
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and not keyword_only:
            words.append("*")
        keyword_only = parameter.kind in {inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.VAR_POSITIONAL}
        words.append(signs.get(parameter.kind, "") + parameter.name)
    return f"({', '.join(words)})"


def test_public_names_and_parameters_are_those_written_down() -> None:
    modules = [importlib.import_module(name) for name in _promised()]
    present = [line for module in modules for name in _names(module) for line in _described(module, name)]
    if os.environ.get("CAPTUM_LIPSCHITZ_WRITE_PUBLIC_NAMES"):
        RECORD.write_text("\n".join(present) + "\n", encoding="utf-8")
    written = RECORD.read_text(encoding="utf-8").splitlines()
    gone, new = sorted(set(written) - set(present)), sorted(set(present) - set(written))
    assert gone == [], f"gone or changed: deprecate first, see {PAGE.name}; now there is {new}"
    assert new == [], f"new: add by CAPTUM_LIPSCHITZ_WRITE_PUBLIC_NAMES=1 pytest tests/{Path(__file__).name}"


def test_the_page_promises_every_package_with_public_names_and_no_private_module() -> None:
    package = ROOT / "captum_lipschitz"
    folders = [path.parent for path in package.rglob("__init__.py") if "\n__all__ = " in path.read_text("utf-8")]
    packages = {".".join(folder.relative_to(ROOT).parts) for folder in folders}
    assert packages <= set(_promised())
    assert [name for name in _promised() if "._" in name] == []
