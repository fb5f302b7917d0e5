"""Components by name: what hosts, the command line and users ask. The first question loads the plugins."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any, Literal, overload

from captum_lipschitz.errors import UnknownNameError
from captum_lipschitz.plugin.manager import Loader, PluginRecord
from captum_lipschitz.plugin.spec import (
    HOOKS,
    AttackLike,
    AttributionLike,
    ComponentSpec,
    MetricLike,
    TrainingHookLike,
)

_LOADER = Loader()


def plugins() -> list[PluginRecord]:
    """What became of every plugin found, our own first, then by name of the distribution.

    Raises:
        PluginError: in strict mode (``CAPTUM_LIPSCHITZ_PLUGINS_STRICT=1``), where one failed. So do all look-ups.

    Example:
        >>> [record.status for record in plugins() if record.name == "builtin"]
        ['loaded']
    """
    return list(_LOADER.loaded().records)


def components(kind: str | None = None) -> list[ComponentSpec]:
    """The registered components, of one kind or of all.

    Args:
        kind: ``"attack"``, ``"attribution"``, ``"metric"``, ``"training_hook"``, or ``None`` for all of them.

    Returns:
        Their specifications, our own first.

    Raises:
        UnknownNameError: for another kind.

    Example:
        >>> sorted(component.name for component in components("attack") if ":" not in component.name)
        ['minimum_norm', 'paper']
    """
    if kind is not None:
        _check_kind(kind)
    return [component for component in _LOADER.loaded().components.values() if kind in (None, component.kind)]


def get(kind: str, name: str) -> ComponentSpec:
    """The component of that kind and name.

    Args:
        kind: see ``components``.
        name: of a component of that kind.

    Returns:
        Its ``ComponentSpec``; ``factory`` makes the component.

    Raises:
        UnknownNameError: there is none; the message lists those there are, and the plugins that failed.

    Example:
        >>> get("metric", "ara").summary
        'Accuracy-Robustness Area'
    """
    _check_kind(kind)
    loaded = _LOADER.loaded()
    if (kind, name) in loaded.components:
        return loaded.components[kind, name]
    message = _unknown(kind, name, [component.name for component in components(kind)])
    failed = "; ".join(str(record) for record in loaded.failed())
    raise UnknownNameError(message + (f". Plugins that failed: {failed}" if failed else ""))


@overload
def create(kind: Literal["attack"], name: str, /, *args: Any, **settings: Any) -> AttackLike: ...
@overload
def create(kind: Literal["attribution"], name: str, /, *args: Any, **settings: Any) -> AttributionLike: ...
@overload
def create(kind: Literal["metric"], name: str, /, *args: Any, **settings: Any) -> MetricLike: ...
@overload
def create(kind: Literal["training_hook"], name: str, /, *args: Any, **settings: Any) -> TrainingHookLike: ...
@overload
def create(kind: str, name: str, /, *args: Any, **settings: Any) -> object: ...
def create(kind: str, name: str, /, *args: Any, **settings: Any) -> object:
    """Make a component: ``get(kind, name).factory(*args, **settings)``.

    Args:
        kind: see ``components``.
        name: see ``components``.
        args: passed to the factory; an attribution's takes the model.
        settings: passed to the factory.

    Returns:
        An ``AttackLike``, ``AttributionLike``, ``MetricLike`` or ``TrainingHookLike``, by kind.

    Raises:
        UnknownNameError: see ``get``.

    Example:
        >>> create("attack", "paper", steps=20).steps
        20
    """
    return get(kind, name).factory(*args, **settings)


def create_attack(name: str, /, **settings: Any) -> AttackLike:
    """Make an attack by name.

    Args:
        name: of a component of kind ``"attack"``.
        settings: the attack's own.

    Returns:
        An attack, called as ``attack(model, inputs, labels, criterion="misclassified")``.

    Raises:
        UnknownNameError: see ``get``.

    Example:
        >>> attack = create_attack("minimum_norm", norm="l2", bounds=(0, 1))
        >>> attack.bounds
        Bounds(lower=0.0, upper=1.0)
    """
    return create("attack", name, **settings)


def _check_kind(kind: str) -> None:
    if kind not in HOOKS:
        raise UnknownNameError(_unknown("kind", kind, HOOKS))


def _unknown(what: str, name: object, choices: Collection[str]) -> str:
    """A message that names the choices, and the one that was probably meant."""
    close = difflib.get_close_matches(str(name), choices, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{what}: expected one of {sorted(choices)}, got {name!r}{hint}"
