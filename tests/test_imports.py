"""The import rules of the house: light to import, one way through, nothing done on the way."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import captum_lipschitz

PACKAGE = Path(captum_lipschitz.__file__).parent
HEAVY = {"torchvision", "matplotlib", "torchattacks", "captum", "quantus", "sklearn", "lightning", "torchmetrics"}

# Lower layers first; a module may import its own layer and those before it.
LAYERS = [
    {"errors", "_typing"},
    {
        "geometry",
        "nn",
        "_model",
        "_files",
        "_trace",
        "_hooks",
        "_memory",
        "_shared",
        "_reading",
        "_tensors",
        "_deprecation",
    },
    {"objectives"},
    {"criteria", "models"},
    {"attacks"},
    {"attr", "metrics", "training"},
    {"plugin"},
    {"testing"},
    {"report", "demo", "measure"},
    {"cli", "cli_ara", "cli_audit", "cli_shared", "__main__"},
]
ONLY = {
    "captum": {"attr", "metrics", "report", "testing"},
    "quantus": {"metrics"},
    "pluggy": {"plugin"},
    "sklearn": {"demo"},
}
WITHIN = {
    ("captum", "metrics"): "metrics/fidelity/",
    ("quantus", "metrics"): "metrics/fidelity/",
}  # of a part, there only
NOWHERE = {"torchvision", "torchattacks", "lightning"}
EXCEPT = {"torchvision": {"measure/models.py"}}  # at use: importing the file brings nothing heavy, as tested below


def _modules() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def _imports(path: Path) -> set[str]:
    """Full names of everything a file imports, inside functions too."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, f"{path.name} has a relative import"
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _part(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


@pytest.mark.parametrize("path", _modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    part = _part(path)
    rank = {name: i for i, layer in enumerate(LAYERS) for name in layer}
    for imported in _imports(path):
        root, _, rest = imported.partition(".")
        if root in ONLY:
            assert part in ONLY[root], f"{path.name} imports {imported}"
            folder = WITHIN.get((root, part), "")
            assert path.relative_to(PACKAGE).as_posix().startswith(folder), f"{path.name} imports {imported}"
        excepted = path.relative_to(PACKAGE).as_posix() in EXCEPT.get(root, set())
        assert root not in NOWHERE or excepted, f"{path.name} imports {imported}"
        if root == "captum_lipschitz" and part not in ("__init__", "demo", "cli", "__main__"):
            assert rest, f"{path.name} imports the public face, which imports it"
        inner = rest.partition(".")[0]
        if root != "captum_lipschitz" or inner not in rank or part == "__init__":
            continue
        assert rank[inner] <= rank[part], f"{path.name} imports {imported}"
        if {part, inner} <= {"attr", "metrics", "training"}:
            assert part == inner, f"{path.name} imports {imported}"


def _loaded_by(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stderr == ""
    return {name.partition(".")[0] for name in output.stdout.split()}


def test_importing_the_package_is_light_and_silent() -> None:
    assert not _loaded_by("import captum_lipschitz, captum_lipschitz.metrics.fidelity") & HEAVY


def test_the_command_line_is_light_and_silent() -> None:
    assert not _loaded_by("import captum_lipschitz.cli, captum_lipschitz.measure.models") & (HEAVY | {"PIL"})


def test_captum_comes_with_the_first_attribution() -> None:
    assert "captum" in _loaded_by("from captum_lipschitz import AdversarialAttribution")


def test_import_changes_nothing_global() -> None:
    code = """
import torch
before = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
import captum_lipschitz, captum_lipschitz.attr
after = (torch.get_rng_state(), torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled())
assert torch.equal(before[0], after[0]) and before[1:] == after[1:]
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_public_names_are_all_there() -> None:
    for name in captum_lipschitz.__all__:
        assert getattr(captum_lipschitz, name) is not None
    assert set(dir(captum_lipschitz)) == set(captum_lipschitz.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        captum_lipschitz.nothing  # noqa: B018


def test_every_public_name_is_tested() -> None:
    text = "".join(path.read_text(encoding="utf-8") for path in Path(__file__).parent.rglob("test_*.py"))
    assert [name for name in captum_lipschitz.__all__ if name not in text] == []
