"""Every example in a docstring runs, and every module says what it is."""

import doctest
import importlib
import pkgutil

import pytest

import captum_lipschitz_lightning as plugin

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
