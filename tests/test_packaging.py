"""One version everywhere: the package, the distributions, the changelog and the citation."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import captum_lipschitz

ROOT = Path(__file__).resolve().parents[1]
PLUGINS = sorted(ROOT.glob("plugins/*/pyproject.toml"))


def _field(text: str, pattern: str) -> str:
    (found,) = re.findall(pattern, text, flags=re.MULTILINE)
    return str(found)


@pytest.mark.parametrize(
    ("page", "pattern"),
    [
        ("pyproject.toml", r'^version = "(.*)"$'),
        ("CITATION.cff", r"^version: (.*)$"),
    ],
)
def test_the_version_stands_in_every_place(page: str, pattern: str) -> None:
    assert _field((ROOT / page).read_text(encoding="utf-8"), pattern) == captum_lipschitz.__version__


def test_the_changelog_has_the_version_with_the_date_of_the_citation() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[(.*?)\](?: - (.*))?$", changelog, flags=re.MULTILINE)
    assert releases[0] == ("Unreleased", "")
    date = _field((ROOT / "CITATION.cff").read_text(encoding="utf-8"), r"^date-released: (.*)$")
    assert releases[1] == (captum_lipschitz.__version__, date)


@pytest.mark.parametrize("path", PLUGINS, ids=lambda path: path.parent.name)
def test_a_plugin_takes_this_major_version_and_its_extra_takes_the_plugin(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    major = captum_lipschitz.__version__.partition(".")[0]
    assert f'dependencies = ["captum-lipschitz>={major}.0,<{int(major) + 1}"' in text
    assert _field(text, r'^version = "(\d+)\..*"$') == major
    assert path.with_name("LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()
    for extra in re.findall(rf'"({path.parent.name}[^"]*)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")):
        assert extra == f"{path.parent.name}>={major}.0,<{int(major) + 1}"
