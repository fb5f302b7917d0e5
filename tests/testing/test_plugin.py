"""``check_plugin``: ours pass, and each way of breaking a contract is told with its owner."""

from __future__ import annotations

import types
from typing import Any

import pytest

from captum_lipschitz.attacks import MinimumNormAttack
from captum_lipschitz.attr import AdversarialAttribution
from captum_lipschitz.errors import ContractError
from captum_lipschitz.plugin import ComponentSpec, hookimpl, plugins
from captum_lipschitz.testing import check_plugin

QUICK = {"minimum_norm": {"steps": 2}, "paper": {"steps": 10, "rho": 1.0}, "lipschitz": {"strength": 0.1}}


def test_our_own_components_pass(capsys):
    checked = check_plugin("builtin", settings=QUICK)
    assert checked == list(plugins()[0].components)
    assert {component.kind for component in checked} == {"attack", "attribution", "metric", "training_hook"}
    assert capsys.readouterr() == ("", "")


def plugin(
    *,
    kind: str = "attack",
    name: str = "acme:it",
    factory: Any = MinimumNormAttack,
    summary: str = "an attack",
    **rest: Any,
) -> types.SimpleNamespace:
    """An object that carries one hook, with one component."""
    hook = f"captum_lipschitz_{kind}s"

    def bring() -> list[ComponentSpec]:
        return [ComponentSpec(name, kind, factory, summary, "", **rest)]  # type: ignore[arg-type]

    bring.__name__ = hook
    return types.SimpleNamespace(**{hook: hookimpl(bring)})


def quick_attack(**settings: Any) -> MinimumNormAttack:
    return MinimumNormAttack(**{"steps": 2, **settings})


def test_an_object_need_not_be_installed():
    (checked,) = check_plugin(plugin(factory=quick_attack))
    assert (checked.name, checked.kind) == ("acme:it", "attack")
    check_plugin(plugin(kind="attribution", factory=AdversarialAttribution))


def test_strict_mode_or_not_the_reason_is_told(monkeypatch):
    monkeypatch.setenv("CAPTUM_LIPSCHITZ_PLUGINS_STRICT", "1")
    with pytest.raises(ContractError, match=r"the plugin loads: expected status 'loaded', got .*wrong api version"):
        check_plugin(plugin(api_version=7))


def tolerant(steps: int = 2, **settings: Any) -> MinimumNormAttack:
    return MinimumNormAttack(steps=steps)


def printing(**settings: Any) -> Any:
    if settings:
        raise TypeError(f"unexpected {settings}")

    def measure(model, data):
        print("measured")  # noqa: T201 - which is the fault

    return measure


FAULTY = {
    "no hooks": (object(), "the plugin loads: expected status 'loaded', got .*: invalid hook .it carries no function"),
    "name taken": (
        plugin(name="paper"),
        "the plugin loads: .*clash .attack 'paper' is already registered by 'builtin'",
    ),
    "no prefix": (plugin(name="it"), "attack 'it': names have a prefix: expected a name as in 'acme:square', got 'it'"),
    "no summary": (plugin(summary=""), "attack 'acme:it': has a summary: expected one line that says what it is"),
    "any setting": (plugin(factory=tolerant), "attack 'acme:it': refuses an unknown setting: expected a TypeError"),
    "unclear refusal": (
        plugin(factory=dict.fromkeys),
        "refuses an unknown setting: expected an error that names 'no_such_setting_anywhere', got TypeError",
    ),
    "makes something else": (
        plugin(factory=lambda: "PGD"),
        "attack 'acme:it': the factory makes a AttackLike: expected an object that is called as AttackLike",
    ),
    "an attack that breaks a contract": (
        plugin(factory=lambda: lambda _, inputs, *__: inputs),
        "attack 'acme:it': returns an AttackResult: expected an AttackResult, got Tensor",
    ),
    "an attribution that breaks a contract": (
        plugin(kind="attribution", factory=lambda model: model),
        "attribution 'acme:it': the factory makes an AttributionLike",
    ),
    "a hook that breaks a contract": (
        plugin(kind="training_hook", factory=lambda: lambda _: None),
        "training_hook 'acme:it': returns a handle",
    ),
    "a metric that prints": (plugin(kind="metric", factory=printing), "metric 'acme:it': prints nothing"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faults_are_told(fault):
    broken, message = FAULTY[fault]
    with pytest.raises(ContractError, match=message):
        check_plugin(broken)


def test_a_plugin_of_nothing():
    empty = plugin()
    empty.captum_lipschitz_attacks = hookimpl(lambda: [])  # noqa: PIE807 - list takes no mark
    with pytest.raises(ContractError, match=r"the plugin loads|the plugin brings something: expected at least one"):
        check_plugin(empty)


def test_unknown_names_are_told():
    with pytest.raises(
        ContractError, match=r"the plugin is installed: expected one plugin named 'acme' among .*'builtin'"
    ):
        check_plugin("acme")
    for settings in ({"only": ["papr"]}, {"settings": {"papr": {}}}):
        with pytest.raises(
            ContractError, match=r"name components of the plugin: expected any of .*'paper'.*got \['papr'\]"
        ):
            check_plugin("builtin", **settings)
