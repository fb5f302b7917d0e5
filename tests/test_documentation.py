"""Every example in a docstring runs; every public thing is documented. The pages: test_docs_pages.py."""

from __future__ import annotations

import doctest
import importlib
import inspect
import pkgutil
from types import ModuleType

import pytest
import torch

import captum_lipschitz

MODULES = sorted(
    module.name for module in pkgutil.walk_packages(captum_lipschitz.__path__, "captum_lipschitz.")
    if not module.name.endswith("__main__")
)  # fmt: skip


def _doctests(module: ModuleType) -> list[doctest.DocTest]:
    found = doctest.DocTestFinder(exclude_empty=True).find(
        module, extraglobs={"torch": torch, **vars(captum_lipschitz)}
    )
    return [test for test in found if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_docstring_examples(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} does not say what it is"
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in _doctests(module):
        torch.manual_seed(0)
        assert runner.run(test).failed == 0, test.name


@pytest.mark.parametrize("name", [n for n in captum_lipschitz.__all__ if n != "errors"])
def test_public_names_say_what_they_are(name: str) -> None:
    thing = getattr(captum_lipschitz, name)
    assert thing.__doc__
    assert len(thing.__doc__.split()) > 3
    if inspect.isclass(thing):
        public = [m for n, m in vars(thing).items() if inspect.isfunction(m) and not n.startswith("_")]
        undocumented = [m.__name__ for m in public if not inspect.getdoc(m) and not _inherits_doc(thing, m.__name__)]
        assert undocumented == []


def _inherits_doc(thing: type, method: str) -> bool:
    return any(getattr(base, method, None) is not None and getattr(base, method).__doc__ for base in thing.__mro__[1:])
