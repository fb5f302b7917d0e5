"""``docs/plugins.md``: the files that it shows are written, installed by pip and checked, as it says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import captum_lipschitz
from captum_lipschitz import testing

PAGE = Path(__file__).resolve().parents[1] / "docs" / "plugins.md"
TEXT = PAGE.read_text(encoding="utf-8")
FILES = dict(re.findall(r"^```\w+ (\S+)\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE))


def _run(*command: str, folder: Path, site: Path) -> str:
    paths = [str(site), str(Path(captum_lipschitz.__file__).parents[1]), *filter(None, sys.path)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_files_are_installed_and_pass(tmp_path: Path) -> None:
    assert set(FILES) == {"acme_straight.py", "pyproject.toml", "test_contracts.py"}
    source, site = tmp_path / "source", tmp_path / "site"
    source.mkdir()
    for name, text in FILES.items():
        (source / name).write_text(text, encoding="utf-8")
    # What the page's command does, offline: the build backend is there, as the tests require it.
    offline = ("--quiet", "--no-deps", "--no-index", "--no-build-isolation", "--disable-pip-version-check")
    _run("-m", "pip", "install", *offline, "--target", str(site), ".", folder=source, site=site)
    (source / "acme_straight.py").unlink()  # the installed one is meant
    # Both in one process, which imports torch once.
    program = (
        "import runpy; runpy.run_path('test_contracts.py', run_name='__main__'); "
        "from captum_lipschitz.cli import main; main(['plugins'])"
    )
    listed = _run("-c", program, folder=source, site=site)
    (shown,) = re.findall(r"^```text\n(acme .*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
    assert shown in listed


def test_the_attack_has_thirty_lines() -> None:
    lines = [line for line in FILES["acme_straight.py"].splitlines() if line.strip()]
    assert len(lines) <= 30


@pytest.mark.parametrize("check", [name for name in testing.__all__ if name.startswith("check_")])
def test_every_check_is_on_the_page(check: str) -> None:
    assert f"| `{check}` |" in TEXT
