"""The attack that the settings name, and what its answers depend on."""

from __future__ import annotations

import inspect
from typing import Any

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.settings import AraSettings, version_of
from captum_lipschitz.plugin import AttackLike, create_attack, get, plugins

_OPTIONS = ("effort", "norm", "bounds")


def make_attack(settings: AraSettings) -> AttackLike:
    """The attack ``settings.attack`` with those of ``effort``, ``norm`` and ``bounds`` that were given.

    Raises:
        UnknownNameError: no attack has that name; the message lists those there are.
        InvalidInputError: the attack has no such setting, or not that value.
    """
    given = {name: getattr(settings, name) for name in _OPTIONS if getattr(settings, name) is not None}
    known = inspect.signature(get("attack", settings.attack).factory).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in known.values())
    for name, value in given.items():
        if name not in known and not anything:
            raise InvalidInputError(
                f"{name}: the attack {settings.attack!r} has no such setting, got {value!r}; it has {sorted(known)}"
            )
    return create_attack(settings.attack, **given)


def attack_versions(name: str) -> dict[str, Any]:
    """The distribution that an attack comes from, with its version."""
    for record in plugins():
        if any(component.kind == "attack" and component.name == name for component in record.components):
            return {record.distribution: version_of(record.distribution)}
    return {}
