"""Loads each plugin under guard: one that is broken is recorded and takes nothing else down.

Every plugin is registered with a pluggy manager of its own. So nothing of one that fails stays live, a hook that raises
discards its own results only, and whether a plugin's components are taken is decided on all of them together.
"""

from __future__ import annotations

import inspect
import os
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

import pluggy

from captum_lipschitz.errors import CaptumLipschitzWarning, PluginError
from captum_lipschitz.plugin import spec
from captum_lipschitz.plugin.discovery import Candidate, candidates
from captum_lipschitz.plugin.spec import API_VERSION, HOOKS, PROJECT, ComponentSpec, Kind

STRICT = "CAPTUM_LIPSCHITZ_PLUGINS_STRICT"
"""Environment variable; where it is ``1``, a plugin that fails is an error."""

Status: TypeAlias = Literal[
    "loaded",
    "failed to import",
    "invalid hook",
    "failed to register",
    "hook failed",
    "invalid components",
    "clash",
    "wrong api version",
]

# A plugin that calls sys.exit() while it is imported must not end the program either. Ctrl-C must.
_GUARDED = (Exception, SystemExit)


@dataclass(frozen=True)
class PluginRecord:
    """What became of one plugin.

    Attributes:
        name: of the entry point.
        distribution: that the entry point belongs to.
        version: of the distribution.
        status: ``"loaded"``, or at what it failed.
        error: why it failed; ``None`` where it loaded.
        components: what it registered; empty where it failed.
    """

    name: str
    distribution: str
    version: str
    status: Status
    error: str | None = None
    components: tuple[ComponentSpec, ...] = ()

    def __str__(self) -> str:
        origin = f"{self.name!r} of {self.distribution} {self.version}"
        return f"{origin}: {self.status}" + (f" ({self.error})" if self.error else "")


class Loaded(NamedTuple):
    """The components by kind and name, in the order of their registration, and a record of every plugin."""

    components: dict[tuple[str, str], ComponentSpec]
    records: list[PluginRecord]

    def failed(self) -> list[PluginRecord]:
        """The plugins of which nothing is available."""
        return [record for record in self.records if record.status != "loaded"]


class _RefusedError(Exception):
    """A plugin is not taken. The error that was met, if any, is the cause."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Loader:
    """Loads all plugins at the first look-up, once, whichever thread comes first.

    Args:
        find: returns the plugins to load, in the order in which names are given away.
    """

    def __init__(self, find: Callable[[], list[Candidate]] = candidates) -> None:
        self._find = find
        self._lock = threading.RLock()
        self._loading = False
        self._loaded: Loaded | None = None

    def loaded(self) -> Loaded:
        """What was loaded; a warning for every plugin that failed, the first time.

        Raises:
            PluginError: in strict mode, where a plugin failed; or where a plugin looks others up while it is loaded.
        """
        if self._loaded is not None:
            return self._loaded
        with self._lock:
            if self._loaded is not None:
                return self._loaded
            if self._loading:
                raise PluginError("a plugin looked up components while it was being loaded; look them up when called")
            self._loading = True
            try:
                loaded = self._loaded = self._load()
            finally:
                self._loading = False
        for record in loaded.failed():
            warnings.warn(f"plugin {record}; none of it is available", CaptumLipschitzWarning, stacklevel=3)
        return loaded

    def _load(self) -> Loaded:
        loaded, first_error = load(self._find())
        if first_error is not None and os.environ.get(STRICT, "0") not in ("", "0"):
            raise PluginError("; ".join(f"plugin {record}" for record in loaded.failed())) from first_error
        return loaded


def load(found: Iterable[Candidate]) -> tuple[Loaded, Exception | None]:
    """Load plugins in their order: what came of it, and the first error. Nothing is warned of or raised."""
    loaded = Loaded({}, [])
    first_error: Exception | None = None
    for candidate in found:
        origin = (candidate.name, candidate.distribution, candidate.version)
        try:
            components = _accepted(candidate, loaded)
        except _RefusedError as error:
            first_error = first_error or error
            loaded.records.append(PluginRecord(*origin, error.status, str(error)))
            continue
        loaded.components.update({(component.kind, component.name): component for component in components})
        loaded.records.append(PluginRecord(*origin, "loaded", None, tuple(components)))
    return loaded, first_error


def _accepted(candidate: Candidate, loaded: Loaded) -> list[ComponentSpec]:
    """All of a plugin's components, or ``_RefusedError``."""
    try:
        plugin = candidate.load()
    except _GUARDED as error:
        raise _RefusedError("failed to import", _told(error)) from error
    found: list[ComponentSpec] = []
    for kind, implementation in _implementations(plugin):
        found += _checked(kind, implementation)
    names: set[tuple[str, str]] = set()
    for component in found:
        key = (component.kind, component.name)
        if key in loaded.components or key in names:
            raise _RefusedError("clash", f"{component.kind} {component.name!r} {_owner(key, loaded)}")
        names.add(key)
    return found


def _implementations(plugin: object) -> list[tuple[Kind, Callable[[], object]]]:
    """A plugin's hook implementations by kind, from a pluggy manager that knows this plugin alone."""
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(spec)
    try:
        _refuse_misspelt(plugin, manager)
        manager.register(plugin)
    except _RefusedError:
        raise
    except pluggy.PluginValidationError as error:
        raise _RefusedError("invalid hook", _told(error)) from error
    except _GUARDED as error:
        raise _RefusedError("failed to register", _told(error)) from error
    found = [(kind, hook) for kind, name in HOOKS.items() for hook in getattr(manager.hook, name).get_hookimpls()]
    if not found:
        raise _RefusedError("invalid hook", "it carries no function marked with captum_lipschitz.plugin.hookimpl")
    if any(hook.hookwrapper or hook.wrapper for _, hook in found):
        raise _RefusedError("invalid hook", "wrappers would change other plugins' components, and are not supported")
    return [(kind, hook.function) for kind, hook in found]


def _refuse_misspelt(plugin: object, manager: pluggy.PluginManager) -> None:
    """Names that were meant as hooks: marked as one, or beginning like one."""
    known = sorted(HOOKS.values())
    for name in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, name)
        if options is not None:
            hook = options.get("specname") or name
            if hook not in known and not options.get("optionalhook"):
                raise _RefusedError("invalid hook", f"no hook is named {hook!r}; there are {known}")
        elif name.startswith(f"{PROJECT}_") and inspect.isroutine(inspect.getattr_static(plugin, name, None)):
            remedy = "mark it with @hookimpl" if name in known else f"there are {known}"
            raise _RefusedError("invalid hook", f"{name!r} looks like a hook and is none; {remedy}")


def _checked(kind: Kind, implementation: Callable[[], object]) -> list[ComponentSpec]:
    """Call one hook implementation and look at what it returns."""
    hook = HOOKS[kind]
    try:
        returned = implementation()
    except _GUARDED as error:
        raise _RefusedError("hook failed", f"{hook} raised {_told(error)}") from error
    if not isinstance(returned, list):
        raise _RefusedError("invalid components", f"{hook}: expected a list, got {type(returned).__name__}")
    for component in returned:
        if not isinstance(component, ComponentSpec):
            got = type(component).__name__
            raise _RefusedError("invalid components", f"{hook}: expected a list of ComponentSpec, got one of {got}")
        if component.api_version != API_VERSION:
            got = f"{component.name!r} is written for version {component.api_version}"
            raise _RefusedError("wrong api version", f"{got}, this is version {API_VERSION}")
        if component.kind != kind:
            got = f"{component.kind!r} of {component.name!r}"
            raise _RefusedError("invalid components", f"{hook}: expected kind {kind!r}, got {got}")
    return returned


def _owner(key: tuple[str, str], loaded: Loaded) -> str:
    for record in loaded.records:
        if any((component.kind, component.name) == key for component in record.components):
            return f"is already registered by {record.name!r} of {record.distribution}"
    return "is declared twice"


def _told(error: BaseException) -> str:
    """The error's type and message on one line, even where its ``__str__`` is broken."""
    return " ".join("".join(traceback.format_exception_only(error)).split())
