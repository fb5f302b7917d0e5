"""Distributions made on the spot: real metadata on ``sys.path``, found as an installed plugin is."""

import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from captum_lipschitz.plugin import registry
from captum_lipschitz.plugin.manager import Loader

Install = Callable[..., None]


def write_distribution(
    folder: Path, name: str, entry_points: Mapping[str, str], modules: Mapping[str, str], version: str = "1.0"
) -> None:
    """Lay a distribution out in ``folder`` as an installer would: metadata and modules."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = [f"{entry} = {value}" for entry, value in entry_points.items()]
    (info / "entry_points.txt").write_text("\n".join(["[captum_lipschitz]", *lines, ""]))
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(textwrap.dedent(source))


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install(name, source)``: a distribution whose only entry point, of its name, is a module of that source."""
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)

    def install(name: str, source: str, *, entry: str | None = None, version: str = "1.0") -> None:
        module = f"fake_{name.replace('-', '_')}"
        write_distribution(tmp_path, name, {name: entry or module}, {module: source}, version)

    yield install
    for module in set(sys.modules) - before:
        if module.startswith("fake_"):
            del sys.modules[module]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch) -> Loader:
    """A loader that has not loaded anything yet, behind the public look-ups too."""
    fresh = Loader()
    monkeypatch.setattr(registry, "_LOADER", fresh)
    monkeypatch.delenv("CAPTUM_LIPSCHITZ_PLUGINS_STRICT", raising=False)
    return fresh
