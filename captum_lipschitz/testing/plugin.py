"""The contracts of a whole plugin: it loads, and each component keeps those of its kind."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from captum_lipschitz.errors import CaptumLipschitzError, ContractError, MissingDependencyError
from captum_lipschitz.plugin import AttackLike, ComponentSpec, MetricLike, PluginRecord, TrainingHookLike, plugins
from captum_lipschitz.plugin.discovery import Candidate, builtin_candidate
from captum_lipschitz.plugin.manager import load
from captum_lipschitz.testing._contract import answering, quiet, require
from captum_lipschitz.testing._networks import SHAPE, build_case
from captum_lipschitz.testing._traces import check_traces
from captum_lipschitz.testing.attack import check_attack
from captum_lipschitz.testing.attribution import check_attribution
from captum_lipschitz.testing.training_hook import check_training_hook

Settings = Mapping[str, Mapping[str, Any]]
Hosts = Mapping[str, Callable[[], object]]

_NO_SUCH_SETTING = {"no_such_setting_anywhere": 1}


def check_plugin(
    name_or_plugin: object,
    *,
    settings: Settings | None = None,
    hosts: Hosts | None = None,
    only: Collection[str] | None = None,
    shape: Sequence[int] = SHAPE,
    device: torch.device | str = "cpu",
) -> list[ComponentSpec]:
    """Check that a plugin loads and that each of its components keeps the contracts of its kind.

    It must be loaded, with at least one component. A component's name has a prefix, as in ``"acme:square"``, and its
    summary is one line. Its factory refuses an unknown setting at once, and makes what its kind's protocol says, which
    is then checked by ``check_attack``, ``check_attribution`` or ``check_training_hook``; a metric leaves no trace and
    prints nothing. Of a training hook that attaches to a host's class, less is seen: ``check_training_hook`` says what.
    Whatever a component raises where it should not, an absent host's ``MissingDependencyError`` too, breaks a contract.

    Args:
        name_or_plugin: name of an installed plugin's entry point or distribution; or the object that carries the hooks
            (a module, say), which need not be installed.
        settings: for each component's name what its factory is called with; missing ones are called with nothing (an
            attribution with the model).
        hosts: for the name of each training hook that attaches to a host's class what makes a new object of that class;
            where it is missing, only what needs none is checked.
        only: names of the components to check; ``None`` for all.
        shape: of one image; values are within [0, 1].
        device: where to run.

    Returns:
        The components that were checked.

    Raises:
        ContractError: (an ``AssertionError``) for a contract that is not kept: whose, which, what was expected, what
            came.

    Example:
        >>> from captum_lipschitz.testing import check_plugin
        >>> [spec.name for spec in check_plugin("builtin", only=["minimum_norm"])]
        ['minimum_norm']
    """
    record = _installed(name_or_plugin) if isinstance(name_or_plugin, str) else _given(name_or_plugin)
    require(record.status == "loaded", "the plugin loads", "status 'loaded'", str(record))
    require(record.components, "the plugin brings something", "at least one component", "none")
    given, made = dict(settings or {}), dict(hosts or {})
    named = {component.name for component in record.components}
    attaching = {component.name for component in record.components if component.attaches_to}
    for argument, names, choices in (
        ("settings", given, named),
        ("hosts", made, attaching),
        ("only", only or (), named),
    ):
        unknown = sorted(set(names) - choices)
        require(not unknown, f"{argument} name components of the plugin", f"any of {sorted(choices)}", unknown)
    chosen = [component for component in record.components if only is None or component.name in only]
    build_case(shape, device)  # a shape or device that cannot be used is not a component's fault
    ours = record.name == "builtin"
    for component in chosen:
        host = made[component.name]() if component.name in made else None
        with _naming(component):
            _check_component(component, given.get(component.name, {}), shape, device, host, ours=ours)
    return chosen


@contextmanager
def _naming(component: ComponentSpec) -> Iterator[None]:
    try:
        with answering("the component"):
            yield
    except ContractError as error:
        raise ContractError(f"{component.kind} {component.name!r}: {error}") from error


def _installed(name: str) -> PluginRecord:
    records = [record for record in plugins() if name in (record.name, record.distribution)]
    there = sorted({record.name for record in plugins()})
    require(len(records) == 1, "the plugin is installed", f"one plugin named {name!r} among {there}", len(records))
    return records[0]


def _given(plugin: object) -> PluginRecord:
    """Load an object as if it were installed, beside our own components, whose names it may not take."""
    name = getattr(plugin, "__name__", type(plugin).__name__)
    candidate = Candidate(name, "unknown", "unknown", lambda: plugin)
    loaded, _ = load([builtin_candidate(), candidate])
    return loaded.records[-1]


def _check_component(
    component: ComponentSpec,
    settings: Mapping[str, Any],
    shape: Sequence[int],
    device: torch.device | str,
    host: object,
    *,
    ours: bool,
) -> None:
    require(ours or ":" in component.name, "names have a prefix", "a name as in 'acme:square'", repr(component.name))
    summary = component.summary
    require(summary and "\n" not in summary, "has a summary", "one line that says what it is", repr(summary))
    _check_unknown_setting(component, settings, shape, device)
    if component.kind == "attribution":
        check_attribution(functools.partial(component.factory, **settings), shape=shape, device=device)
        return
    with quiet():
        made = component.factory(**settings)
    if component.kind == "attack":
        _require_protocol(made, AttackLike)
        check_attack(made, shape=shape, device=device)
    elif component.kind == "training_hook":
        _require_protocol(made, TrainingHookLike)
        check_training_hook(made, shape=shape, device=device, attaches_to=component.attaches_to, host=host)
    else:
        _require_protocol(made, MetricLike)
        check_traces(lambda case: made(case.model, (case.inputs, case.labels)), lambda: build_case(shape, device))


def _require_protocol(made: object, protocol: type) -> None:
    expected = f"an object that is called as {protocol.__name__} says"
    require(isinstance(made, protocol), f"the factory makes a {protocol.__name__}", expected, type(made).__name__)


def _check_unknown_setting(
    component: ComponentSpec, settings: Mapping[str, Any], shape: Sequence[int], device: torch.device | str
) -> None:
    model = [build_case(shape, device).model] if component.kind == "attribution" else []
    try:
        with quiet():
            component.factory(*model, **settings, **_NO_SUCH_SETTING)
    except (ContractError, MissingDependencyError):
        raise
    except (TypeError, CaptumLipschitzError) as error:
        name = next(iter(_NO_SUCH_SETTING))
        require(name in str(error), "refuses an unknown setting", f"an error that names {name!r}", repr(error))
    else:
        raise ContractError("refuses an unknown setting: expected a TypeError or an exception of ours, got none")
