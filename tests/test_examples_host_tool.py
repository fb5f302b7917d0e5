"""The host of ``examples/host_tool`` finds what is installed, plugins included, and uses each by name."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz.plugin import registry
from captum_lipschitz.plugin.manager import Loader

pytest.importorskip(
    "sklearn", reason="the example's digits ship with scikit-learn: pip install 'captum-lipschitz[demo]'"
)

HOST = Path(__file__).resolve().parents[1] / "examples" / "host_tool" / "host_tool.py"
OURS = ["minimum_norm", "adversarial", "contrastive", "minimal", "lipschitz"]
PLUGIN = """
from captum_lipschitz.attacks import MinimumNormAttack
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.plugin import ComponentSpec, hookimpl

def refused():
    raise InvalidInputError("inputs: expected colours")

@hookimpl
def captum_lipschitz_attacks():
    return [ComponentSpec("acme:it", "attack", MinimumNormAttack, "", ""),
            ComponentSpec("acme:refused", "attack", refused, "", "")]
"""


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], None]:
    """The host's ``main``, with a plugin installed that works and one that does not."""
    for name, source in (("acme_of_the_host", PLUGIN), ("broken_of_the_host", "raise OSError('no file')")):
        (tmp_path / f"{name}.py").write_text(source)
        info = tmp_path / f"{name}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[captum_lipschitz]\n{name} = {name}\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("CAPTUM_LIPSCHITZ_PLUGINS_STRICT", raising=False)
    monkeypatch.setattr(registry, "_LOADER", Loader())
    spec = importlib.util.spec_from_file_location("host_tool", HOST)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: Callable[[list[str]], None] = module.main
    return found


def test_each_kind_is_used_by_name(main: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.warns(CaptumLipschitzWarning, match="broken_of_the_host"):
        main([*OURS, "acme:it", "acme:refused"])
    output = capsys.readouterr().out
    assert "'broken_of_the_host' of broken_of_the_host 1.0: failed to import (OSError: no file)" in output
    found = {
        name: float(size) for name, size in re.findall(r"^attack: (\S+): 8 of 8 found, .* (\S+)$", output, re.MULTILINE)
    }
    assert set(found) == {"minimum_norm", "acme:it"}
    assert found["acme:it"] == found["minimum_norm"]
    assert set(re.findall(r"^attribution: (\S+): size 0\.\d+$", output, re.MULTILINE)) == {
        "adversarial",
        "contrastive",
        "minimal",
    }
    assert "attribution: adversarial: size 0.100" in output  # its budget
    assert "attack: acme:refused: not used: inputs: expected colours" in output
    # The hook is what it says: the network that it trained is more robust than the one trained without.
    (robust,) = re.findall(r"^training_hook: lipschitz: 8 of 8 found, median distance (\S+)$", output, re.MULTILINE)
    assert float(robust) > 1.05 * found["minimum_norm"]
    assert "ara" not in [line.split(": ")[1] for line in output.splitlines() if ": " in line]


def test_it_has_sixty_lines() -> None:
    assert len(HOST.read_text(encoding="utf-8").splitlines()) <= 60
