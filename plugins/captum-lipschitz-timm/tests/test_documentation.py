"""The README's example runs, every example in a docstring runs, and every module says what it is."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest
import torch

import captum_lipschitz_timm as plugin

README = Path(__file__).parents[1] / "README.md"
MODULES = [plugin.__name__, *(f"{plugin.__name__}.{module.name}" for module in pkgutil.iter_modules(plugin.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert module.__doc__
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0


def test_the_readmes_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (snippet,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    namespace = {}
    exec(compile(snippet, "README.md", "exec"), namespace)  # noqa: S102
    assert set(namespace["result"]) == {"loss", "output", "penalty", "strength"}
    state = torch.load(tmp_path / "last.pth.tar", weights_only=True)
    assert state["task_state"]["captum_lipschitz"]["steps"] == 2


def test_every_export_exists():
    assert {getattr(plugin, name).__name__ for name in plugin.__all__} == set(plugin.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = plugin.nothing
