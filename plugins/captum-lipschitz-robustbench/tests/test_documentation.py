"""Every example in a docstring and in the README runs, and every module says what it is."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import captum_lipschitz_robustbench as plugin

MODULES = [plugin.__name__, *(f"{plugin.__name__}.{module.name}" for module in pkgutil.iter_modules(plugin.__path__))]
README = Path(__file__).resolve().parents[1] / "README.md"


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert module.__doc__
    failed, _ = doctest.testmod(module)
    assert failed == 0


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL))
def test_readme_snippets(snippet, capsys):
    exec(compile(snippet, str(README), "exec"), {})  # noqa: S102 (our own page)
    assert "robust accuracy at most" in capsys.readouterr().out


def test_every_export_exists():
    assert {getattr(plugin, name).__name__ for name in plugin.__all__} == set(plugin.__all__)


def test_importing_does_not_import_robustbench_nor_provide_anything():
    code = (
        "import sys, captum_lipschitz_robustbench; "
        "print(sorted({'robustbench', 'autoattack', 'pyautoattack', 'timm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
