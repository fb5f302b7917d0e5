"""Every example in a docstring and in the README runs, and every module says what it is."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import captum_lipschitz_mlflow as plugin
from captum_lipschitz_mlflow.settings import NAMES

README = Path(__file__).parents[1] / "README.md"
MODULES = [plugin.__name__, *(f"{plugin.__name__}.{module.name}" for module in pkgutil.iter_modules(plugin.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert module.__doc__
    failed, _ = doctest.testmod(module)
    assert failed == 0


def test_every_export_exists():
    assert {getattr(plugin, name).__name__ for name in plugin.__all__} == set(plugin.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = plugin.nothing


def test_the_readme_runs(capsys):
    names = {}
    for snippet in re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL):
        exec(compile(snippet, str(README), "exec"), names)  # noqa: S102 - our own README
    assert names["result"].metrics["ara_images"] == 16
    assert "perturbation_size" in capsys.readouterr().out


def test_the_readme_tells_all_settings():
    text = README.read_text(encoding="utf-8")
    assert [name for name in NAMES if f"`{name}`" not in text] == []
