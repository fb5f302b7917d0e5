"""Every example in a docstring runs, and every module says what it is."""

import doctest
import importlib
import pkgutil

import pytest
import torch

import captum_lipschitz_torchattacks as plugin

MODULES = [plugin.__name__, *(f"{plugin.__name__}.{module.name}" for module in pkgutil.iter_modules(plugin.__path__))]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name):
    module = importlib.import_module(name)
    assert module.__doc__
    failed, _ = doctest.testmod(module, extraglobs={"torch": torch})
    assert failed == 0
