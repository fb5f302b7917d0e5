"""The architecture page says what the import test holds, and names files and tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import captum_lipschitz

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
PACKAGE = Path(captum_lipschitz.__file__).parent
PLUGINS = sorted((ROOT / "plugins").glob("captum-lipschitz-*"))


def _row(line: str) -> list[str]:
    return re.findall(r"`([\w.]+)`", line.split("|")[1])


def test_the_layers_of_the_page_are_those_of_the_package_in_their_order() -> None:
    section = PAGE.partition("## The import rule")[2].partition("\nBeside that")[0]
    order = [name for line in section.splitlines() if line.startswith("| `") for name in _row(line)]
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(order) == {name for name in modules if not name.startswith("cli_")} - {"__init__"}
    enforced = (ROOT / "tests" / "test_imports.py").read_text(encoding="utf-8")
    assigned = {
        ast.unparse(node.targets[0]): node.value for node in ast.parse(enforced).body if isinstance(node, ast.Assign)
    }
    layers: list[set[str]] = ast.literal_eval(assigned["LAYERS"])
    places = [next(i for i, layer in enumerate(layers) if name in layer) for name in order]
    assert places == sorted(places)


def _named(pattern: str) -> list[str]:
    return sorted({name for name in re.findall(pattern, PAGE) if "NAME" not in name and "HOST" not in name})


@pytest.mark.parametrize("name", _named(r"`((?:[\w-]+/)*[\w-]+\.(?:py|md|toml))`"))
def test_files_that_the_page_names_exist(name: str) -> None:
    folders = [ROOT, PACKAGE, ROOT / "docs", *(PACKAGE / part for part in ("attacks", "metrics", "training", "plugin"))]
    folders += [PACKAGE / "report" / "explanations", ROOT / "benchmarks", *PLUGINS]
    if not PLUGINS and name.startswith("tests/"):
        pytest.skip("the plugins, which may have it, are not in this copy")
    assert any((folder / name).exists() for folder in folders), name


@pytest.mark.parametrize("name", _named(r"`(test_\w+)`"))
def test_tests_that_the_page_names_exist(name: str) -> None:
    files = [*(ROOT / "tests").rglob("test_*.py")]
    assert any(f"def {name}(" in path.read_text(encoding="utf-8") for path in files), name
