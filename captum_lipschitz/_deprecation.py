"""How a public name or parameter goes: with a warning, not before the next major version (docs/stability.md)."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, ParamSpec, TypeVar

from captum_lipschitz.errors import CaptumLipschitzDeprecationWarning, InvalidInputError, InvalidTypeError

P = ParamSpec("P")
R = TypeVar("R")

_SINCE = re.compile(r"(\d+)\.\d+")
_REMOVAL = re.compile(r"(\d+)\.0")


@dataclass(frozen=True)
class Deprecation:
    """What replaces something deprecated, and when it goes.

    Attributes:
        replacement: of a name, the full name of what to use instead, as in ``"captum_lipschitz.attacks.PaperAttack"``;
            of a parameter, the new parameter.
        since: the minor version that warns first, as in ``"1.2"``.
        removal: the major version that no longer has it, as in ``"2.0"``: a later one than ``since``'s.

    Raises:
        InvalidInputError: for versions in another form, or a removal that breaks the promise.
    """

    replacement: str
    since: str
    removal: str

    def __post_init__(self) -> None:
        since, removal = _SINCE.fullmatch(self.since), _REMOVAL.fullmatch(self.removal)
        if since is None:
            raise InvalidInputError(f"since: expected a minor version as in '1.2', got {self.since!r}")
        if removal is None or int(removal[1]) <= int(since[1]):
            raise InvalidInputError(
                f"removal: expected a major version after {self.since}, as in '{int(since[1]) + 1}.0', "
                f"got {self.removal!r}"
            )

    def warn(self, what: str, *, stacklevel: int) -> None:
        """Warn the caller that ``stacklevel`` frames up used ``what``."""
        warnings.warn(
            f"{what} is deprecated since captum_lipschitz {self.since} and will be removed in {self.removal}: "
            f"use {self.replacement}",
            CaptumLipschitzDeprecationWarning,
            stacklevel=stacklevel + 1,
        )


def deprecated_name(module: str, name: str, moved: Mapping[str, Deprecation]) -> Any:
    """What a module's ``__getattr__`` returns where names have moved: the replacement, with a warning.

    Args:
        module: the module's ``__name__``.
        name: the name that was asked for.
        moved: for each deprecated name of the module, its replacement.

    Raises:
        AttributeError: the name is not one of them, as for any name that a module lacks.

    Example:
        >>> moved = {"Deepest": Deprecation("captum_lipschitz.attacks.PaperAttack", since="1.1", removal="2.0")}
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     warnings.simplefilter("always")
        ...     deprecated_name("captum_lipschitz.attacks", "Deepest", moved).__name__
        'PaperAttack'
        >>> print(caught[0].message)
        captum_lipschitz.attacks.Deepest is deprecated since captum_lipschitz 1.1 and will be removed in 2.0: use
        captum_lipschitz.attacks.PaperAttack
    """
    if name not in moved:
        raise AttributeError(f"module {module!r} has no attribute {name!r}")
    deprecation = moved[name]
    deprecation.warn(f"{module}.{name}", stacklevel=3)  # this function, the module's __getattr__, the user
    place, _, attribute = deprecation.replacement.rpartition(".")
    return getattr(import_module(place), attribute)


def deprecated_parameter(
    old: str, deprecation: Deprecation, *, convert: Callable[[Any], Any] | None = None
) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """A decorator under which a function still takes a keyword that has another name now.

    It stands below Captum's ``log_usage`` and above nothing else, so that ``__wrapped__`` is the function itself.

    Args:
        old: the parameter's former name, which the function no longer has.
        deprecation: ``replacement`` is the parameter's present name.
        convert: makes the new parameter's value of the old one's; as it is by default.

    Raises:
        InvalidTypeError: at the call, for both names at once.

    Example:
        >>> @deprecated_parameter("eps", Deprecation("rho", since="1.1", removal="2.0"))
        ... def size(*, rho):
        ...     return rho
        >>> with warnings.catch_warnings(record=True):
        ...     warnings.simplefilter("always")
        ...     size(eps=0.1)
        0.1
    """

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if old in kwargs:
                new = deprecation.replacement
                if new in kwargs:
                    raise InvalidTypeError(f"{old}: expected {new} alone, its present name, got both")
                deprecation.warn(f"{function.__qualname__}({old}=)", stacklevel=2)
                value = kwargs.pop(old)
                kwargs[new] = value if convert is None else convert(value)
            return function(*args, **kwargs)

        return wrapper

    return decorate
