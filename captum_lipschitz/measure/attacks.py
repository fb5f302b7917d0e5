"""The attack that the settings name, and what its answers depend on."""

from __future__ import annotations

import inspect
import re
from importlib import metadata
from typing import Any

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.settings import AraSettings, version_of
from captum_lipschitz.plugin import AttackLike, create_attack, get, plugins

_OPTIONS = ("effort", "norm", "bounds")
_OWN = "captum-lipschitz"
_TOOLING = ("test", "tests", "dev", "docs", "lint")  # extras whose requirements no attack runs


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
    """The distribution that an attack comes from and, where it is a plugin, those it wraps, with their versions.

    What a plugin wraps is what it requires, also by an extra, as far as it is installed.
    """
    for record in plugins():
        if any(component.kind == "attack" and component.name == name for component in record.components):
            names = [record.distribution, *_required(record.distribution)]
            return {name: version_of(name) for name in names}
    return {}


def _required(distribution: str) -> list[str]:
    """The names of the installed distributions that a plugin's one requires."""
    try:
        requirements = [] if distribution == _OWN else metadata.requires(distribution) or []
    except metadata.PackageNotFoundError:
        return []
    needed = set()
    for requirement in requirements:
        name, extra = re.match(r"[\w.-]+", requirement), re.search(r"extra\s*==\s*['\"]([^'\"]+)", requirement)
        if name and not (extra and extra[1] in _TOOLING):
            needed.add(name[0])
    return sorted(name for name in needed if _installed(name))


def _installed(distribution: str) -> bool:
    try:
        metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return False
    return True
