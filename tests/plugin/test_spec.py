"""The contracts: every hook is documented, has a kind, and brings what it says."""

import dataclasses
from typing import Any

import pluggy
import pytest

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.plugin import ComponentSpec, components, plugins, spec

pytestmark = pytest.mark.usefixtures("loader")

HOOKSPECS = [name for name in vars(spec) if hasattr(getattr(spec, name), f"{spec.PROJECT}_spec")]


def component(**changes: Any) -> ComponentSpec:
    fields = {"name": "acme:it", "kind": "attack", "factory": dict, "summary": "", "reference": ""}
    return ComponentSpec(**{**fields, **changes})


def test_each_kind_has_one_hook():
    assert sorted(HOOKSPECS) == sorted(spec.HOOKS.values())


@pytest.mark.parametrize("hook", HOOKSPECS)
def test_hook_is_documented_and_empty_by_default(hook):
    function = getattr(spec, hook)
    assert function.__doc__.startswith("Return the plugin's")
    assert function() == []


@pytest.mark.parametrize(("kind", "hook"), spec.HOOKS.items())
def test_hook_brings_components_of_its_kind(kind, hook, install):
    install(
        "acme",
        f"""
        from captum_lipschitz.plugin import ComponentSpec, hookimpl

        @hookimpl
        def {hook}():
            return [ComponentSpec("acme:it", {kind!r}, dict, "a dictionary", "")]
        """,
    )
    assert "acme:it" in [found.name for found in components(kind)]
    assert [found.kind for found in components() if found.name == "acme:it"] == [kind]


@pytest.mark.parametrize("kind", spec.HOOKS)
def test_we_bring_a_component_of_each_kind_ourselves(kind):
    ours = plugins()[0]
    assert (ours.name, ours.distribution, ours.status) == ("builtin", "captum-lipschitz", "loaded")
    assert kind in [found.kind for found in ours.components]


def test_hookimpl_marks_for_our_project():
    def captum_lipschitz_metrics() -> list[ComponentSpec]:
        return []

    marked = spec.hookimpl(captum_lipschitz_metrics)
    assert hasattr(marked, f"{spec.PROJECT}_impl")
    assert isinstance(spec.hookimpl, pluggy.HookimplMarker)


def test_component_is_frozen_and_of_this_version():
    made = component()
    assert made.api_version == spec.API_VERSION == 1
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.name = "other"


def test_training_hook_says_what_it_attaches_to():
    assert component(kind="training_hook").attaches_to == ""  # any nn.Module, as all did before there was the field
    assert component(kind="training_hook", attaches_to="acme.tasks.Task").attaches_to == "acme.tasks.Task"


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"name": ""}, InvalidInputError, r"name: expected letters, digits and any of .*, got ''"),
        ({"name": "two words"}, InvalidInputError, r"name: expected .*, got 'two words'"),
        ({"name": 3}, InvalidTypeError, r"name: expected a string, got 3"),
        ({"kind": "attacks"}, InvalidInputError, r"kind: expected one of \['attack', .*\], got 'attacks'"),
        ({"factory": "PGD"}, InvalidTypeError, r"factory: expected a callable, got 'PGD'"),
        ({"summary": None}, InvalidTypeError, r"summary: expected a string, got None"),
        ({"reference": 1906}, InvalidTypeError, r"reference: expected a string, got 1906"),
        ({"attaches_to": dict}, InvalidTypeError, r"attaches_to: expected a string, got <class 'dict'>"),
        (
            {"attaches_to": "acme.Task"},
            InvalidInputError,
            r"attaches_to: expected '' for kind 'attack', got 'acme.Task'",
        ),
        (
            {"kind": "training_hook", "attaches_to": "a Task"},
            InvalidInputError,
            r"attaches_to: expected a class as in 'acme.Task', got 'a Task'",
        ),
        ({"kind": "training_hook", "attaches_to": "Task"}, InvalidInputError, r"attaches_to: expected .*, got 'Task'"),
        ({"api_version": "1"}, InvalidTypeError, r"api_version: expected a whole number, got '1'"),
    ],
)
def test_component_refuses(changes, error, message):
    with pytest.raises(error, match=message):
        component(**changes)
