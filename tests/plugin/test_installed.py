"""Eight distributions that pip really installs: six broken, one way each, and two healthy ones around them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import zipfile
from pathlib import Path
from typing import Any

import pytest

import captum_lipschitz

HEAD = "from captum_lipschitz.plugin import ComponentSpec, hookimpl\n"


def bringing(name: str, *, hook: str = "captum_lipschitz_attacks", extra: str = "") -> str:
    factory = "from captum_lipschitz.attacks import MinimumNormAttack\n"
    body = f"    return [ComponentSpec({name!r}, 'attack', MinimumNormAttack, 'an attack', ''{extra})]\n"
    return f"{HEAD}{factory}@hookimpl\ndef {hook}():\n{body}"


HEALTHY = {"aa-healthy": bringing("first:it"), "zz-healthy": bringing("last:it")}
BROKEN: dict[str, tuple[str, str, str]] = {
    "fails-to-import": (
        "import no_such_module_anywhere",
        "failed to import",
        "No module named 'no_such_module_anywhere'",
    ),
    "raises-in-a-hook": (
        f"{HEAD}@hookimpl\ndef captum_lipschitz_attacks():\n    raise OSError('no table')",
        "hook failed",
        "captum_lipschitz_attacks raised OSError: no table",
    ),
    "misspelt-hook": (
        bringing("misspelt:it", hook="captum_lipschitz_atacks"),
        "invalid hook",
        "no hook is named 'captum_lipschitz_atacks'",
    ),
    "name-clash": (bringing("paper"), "clash", "attack 'paper' is already registered by 'builtin' of captum-lipschitz"),
    "wrong-version": (
        bringing("version:it", extra=", api_version=99"),
        "wrong api version",
        "'version:it' is written for version 99, this is version 1",
    ),
    "returns-rubbish": (
        f"{HEAD}@hookimpl\ndef captum_lipschitz_attacks():\n    return ['rubbish']",
        "invalid components",
        "expected a list of ComponentSpec, got one of str",
    ),
}


def build_wheel(folder: Path, name: str, source: str) -> Path:
    """A wheel of one module, whose entry point has the distribution's name."""
    module = f"installed_{name.replace('-', '_')}"
    info = f"{name.replace('-', '_')}-2.1.dist-info"
    files = {
        f"{module}.py": source,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 2.1\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/entry_points.txt": f"[captum_lipschitz]\n{name} = {module}\n",
    }
    path = folder / f"{name.replace('-', '_')}-2.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in (*files, f"{info}/RECORD")))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where pip installed them."""
    folder = tmp_path_factory.mktemp("installed")
    sources = HEALTHY | {name: source for name, (source, _, _) in BROKEN.items()}
    wheels = [str(build_wheel(folder, name, source)) for name, source in sources.items()]
    options = ["--quiet", "--no-deps", "--no-index", "--no-compile", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "install", *options, "--target", str(folder / "site"), *wheels]
    subprocess.run(command, check=True, timeout=300)
    return folder / "site"


def run(site: Path, program: str) -> subprocess.CompletedProcess[str]:
    """A new interpreter, for which they are installed."""
    paths = [str(site), str(Path(captum_lipschitz.__file__).parents[1]), *filter(None, sys.path)]
    variables = {**os.environ, "CAPTUM_LIPSCHITZ_PLUGINS_STRICT": "0", "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture(scope="module")
def seen(site: Path) -> dict[str, Any]:
    """What one program of a user meets, command line included; ``stderr`` is all that it was told."""
    done = run(
        site,
        """
        import contextlib, io, json, os
        import torch
        from captum_lipschitz import create_attack
        from captum_lipschitz.cli import main
        from captum_lipschitz.plugin import components, get, registry
        from captum_lipschitz.plugin.manager import Loader
        from captum_lipschitz.testing import check_plugin

        def printed(*arguments):
            with contextlib.redirect_stdout(io.StringIO()) as output:
                assert main(arguments) == 0
            return output.getvalue()

        seen = {"json": json.loads(printed("plugins", "--json")), "text": printed("plugins")}
        seen["names"] = [component.name for component in components("attack")]
        images, labels = torch.rand(3, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 0, 0])
        model = torch.nn.Linear(8, 2)
        attacks = [create_attack(name, steps=5) for name in ("first:it", "last:it")]
        seen["found"] = [attack(model, images, labels).found.tolist() for attack in attacks]
        try:
            get("attack", "version:it")
        except LookupError as error:
            seen["look-up"] = str(error)
        try:
            check_plugin("returns-rubbish")
        except AssertionError as error:
            seen["check"] = str(error)

        # As a new process would begin in strict mode.
        os.environ["CAPTUM_LIPSCHITZ_PLUGINS_STRICT"] = "1"
        registry._LOADER = Loader()
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            status = main(["plugins"])
        seen["strict"] = {"status": status, "output": out.getvalue(), "errors": err.getvalue()}
        print(json.dumps(seen))
        """,
    )
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "stderr": done.stderr}


def test_the_healthy_ones_work(seen: dict[str, Any]) -> None:
    assert {"minimum_norm", "paper", "first:it", "last:it"} <= set(seen["names"])
    assert seen["found"] == [[True] * 3] * 2
    assert not {"misspelt:it", "version:it"} & set(seen["names"])


@pytest.mark.parametrize("name", BROKEN)
def test_each_broken_one_is_listed_with_its_reason(name: str, seen: dict[str, Any]) -> None:
    _, status, reason = BROKEN[name]
    (record,) = [record for record in seen["json"] if record["name"] == name]
    assert (record["distribution"], record["version"], record["status"]) == (name, "2.1", status)
    assert reason in record["error"]
    assert record["components"] == []
    assert f"{name} ({name} 2.1): {status}\n    {record['error']}\n" in seen["text"]


@pytest.mark.parametrize("name", BROKEN)
def test_start_up_says_so_once(name: str, seen: dict[str, Any]) -> None:
    assert seen["stderr"].count(f"plugin {name!r} of {name} 2.1: {BROKEN[name][1]}") == 1


def test_nothing_else_is_said(seen: dict[str, Any]) -> None:
    assert seen["stderr"].count("CaptumLipschitzWarning") == len(BROKEN)
    assert "Traceback" not in seen["stderr"]


def test_a_look_up_names_the_choices_and_those_that_failed(seen: dict[str, Any]) -> None:
    before, _, after = seen["look-up"].partition("Plugins that failed: ")
    assert all(repr(name) in before for name in ("first:it", "last:it", "paper", "minimum_norm"))
    assert all(f"{name!r} of {name} 2.1: {status}" in after for name, (_, status, _) in BROKEN.items())
    assert all(reason in after for _, _, reason in BROKEN.values())


def test_check_plugin_tells_the_reason(seen: dict[str, Any]) -> None:
    assert seen["check"].startswith("the plugin loads: expected status 'loaded', got 'returns-rubbish'")
    assert BROKEN["returns-rubbish"][2] in seen["check"]


def test_strict_mode_is_an_error_that_names_all(seen: dict[str, Any]) -> None:
    assert seen["strict"]["status"] == 1
    assert seen["strict"]["output"] == ""
    told = seen["strict"]["errors"]
    assert told.startswith("captum-lipschitz: plugin ")
    assert all(f"plugin {name!r} of {name} 2.1: {status}" in told for name, (_, status, _) in BROKEN.items())
    assert "aa-healthy" not in told
