"""Docstrings of the public things say what they must: arguments, answer, errors, source."""

from __future__ import annotations

import inspect
from importlib import import_module

import pytest
from docstrings import (
    callables,
    entries,
    identifiers,
    parameters,
    raises_something,
    resolve,
    returns_something,
    sections,
)

import captum_lipschitz

PACKAGES = (
    *("attacks", "attr", "demo", "measure", "metrics", "metrics.fidelity", "plugin", "testing", "training"),
    *("criteria", "errors", "geometry", "models", "nn", "objectives"),
)
PUBLIC = {name: (inspect.unwrap(function), docstring) for name, function, docstring in callables()}  # type: ignore[arg-type]

# What stands for something of the paper, or of another one, says where it is from.
FROM_PAPERS = (
    *("AccuracyRobustnessArea", "AdaptiveStrength", "AdversarialAttribution", "AdversarialTraining", "BelowChance"),
    *("ContrastiveAdversarialAttribution", "HalfHuberReLU", "HalfHuberSchedule", "LayerAdversarialAttribution"),
    *("LipschitzRegularizer", "MinimalAdversarialAttribution", "MinimumNormAttack", "PaperAttack"),
    *("RegularizedModule", "accuracy_robustness_area", "attach_regularizer", "below_chance_areas", "compare"),
    *("expected_penalty", "fit_temperature", "lipschitz_penalty", "local_lipschitz", "margin_radius"),
    *("metrics.find_doubts", "metrics.invalidation", "metrics.fidelity.road", "models.PreActResNet44"),
)


def _is_protocol(name: str) -> bool:
    return bool(getattr(resolve(name), "_is_protocol", False)) if name in identifiers() else False


def test_every_public_name_is_on_an_api_page_once() -> None:
    shown = [id(resolve(name)) for name in identifiers()]
    assert len(shown) == len(set(identifiers()))
    wanted = {name: getattr(captum_lipschitz, name) for name in captum_lipschitz.__all__ if name != "errors"}
    for package in PACKAGES:
        module = import_module(f"captum_lipschitz.{package}")
        here = [name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__]
        for name in getattr(module, "__all__", [name for name in here if not name.startswith("_")]):
            wanted[f"{package}.{name}"] = getattr(module, name)
    missing = [
        name for name, thing in wanted.items() if id(thing) not in shown and (inspect.isclass(thing) or callable(thing))
        and not hasattr(thing, "__origin__") and type(thing).__name__ != "TypeVar"
    ]  # fmt: skip
    assert missing == []


def _may_be_short(name: str) -> bool:
    """A method of at most two arguments may explain them in its one sentence; so may one that passes torch's own on."""
    if name in identifiers():
        return _is_protocol(name)
    names, owner = parameters(PUBLIC[name][0]), name.rpartition(".")[0]
    return len(names) <= 2 or _is_protocol(owner) or "keywords" in names


@pytest.mark.parametrize("name", [name for name, (function, _) in PUBLIC.items() if parameters(function)])
def test_arguments_are_explained(name: str) -> None:
    function, docstring = PUBLIC[name]
    section = sections(docstring).get("Args")
    if section is None:
        assert _may_be_short(name)
    else:
        assert sorted(entries(section)) == sorted(parameters(function))


@pytest.mark.parametrize("name", [name for name, (function, _) in PUBLIC.items() if returns_something(function)])
def test_answers_are_described(name: str) -> None:
    found = sections(PUBLIC[name][1])
    assert "Args" not in found or {"Returns", "Yields"} & set(found)


@pytest.mark.parametrize("name", PUBLIC)
def test_errors_are_named(name: str) -> None:
    function, docstring = PUBLIC[name]
    if function.__module__.startswith("captum_lipschitz") and not _is_protocol(name) and raises_something(function):
        assert "Error" in sections(docstring).get("Raises", "")


@pytest.mark.parametrize("name", FROM_PAPERS)
def test_sources_are_given(name: str) -> None:
    docstring = inspect.getdoc(resolve(f"captum_lipschitz.{name}")) or ""
    references = sections(docstring)["References"]
    assert "arXiv" in references or "19" in references
