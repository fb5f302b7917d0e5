"""Forward hooks that come off again, wherever Ctrl-C comes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from operator import eq
from typing import Any

from torch import nn

from captum_lipschitz._trace import undone


class Hooks:
    """Forward hooks that come off together, also one that Ctrl-C has parted from its handle."""

    def __init__(self) -> None:
        self._there: list[tuple[nn.Module, Callable[..., Any]]] = []

    def before(self, module: nn.Module, hook: Callable[..., Any], *, with_kwargs: bool = False) -> None:
        """Put a pre-hook on a module."""
        self._there.append((module, hook))
        module.register_forward_pre_hook(hook, with_kwargs=with_kwargs)

    def after(self, module: nn.Module, hook: Callable[..., Any], *, with_kwargs: bool = False) -> None:
        """Put a forward hook on a module."""
        self._there.append((module, hook))
        module.register_forward_hook(hook, with_kwargs=with_kwargs)

    def remove(self) -> None:
        """Take all of them off. May be called more than once."""
        while self._there:
            module, hook = self._there[-1]
            _take_off(module, partial(eq, hook))
            self._there.pop()


@contextmanager
def hooks_kept(*modules: nn.Module) -> Iterator[None]:
    """Inside, others' code puts forward hooks on these modules; at the end they come off, left behind or not."""
    before = [(module, _forward_hooks(module)) for module in modules]

    def restore() -> None:
        for module, known in before:
            _take_off(module, partial(_is_new, known))

    with undone(restore):
        yield


_TABLES = {
    "_forward_hooks": ("_forward_hooks_with_kwargs", "_forward_hooks_always_called"),
    "_forward_pre_hooks": ("_forward_pre_hooks_with_kwargs",),
}  # of torch's modules: the hooks by number, and what is noted of some of these numbers


def _forward_hooks(module: nn.Module) -> list[Callable[..., Any]]:
    return [hook for name in _TABLES for hook in getattr(module, name).values()]


def _is_new(known: list[Callable[..., Any]], hook: Callable[..., Any]) -> bool:
    return not any(hook is one for one in known)


def _take_off(module: nn.Module, which: Callable[[Callable[..., Any]], bool]) -> None:
    for name, others in _TABLES.items():
        table = getattr(module, name)
        for number in [number for number, hook in table.items() if which(hook)]:
            for other in others:
                getattr(module, other).pop(number, None)
            table.pop(number, None)
