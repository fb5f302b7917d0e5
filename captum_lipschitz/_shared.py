"""Settings of the whole program that several threads want changed for a while."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from captum_lipschitz._trace import undone


class Shared:
    """A change that the first of several threads makes, and the last of them undoes.

    If each saved and restored the setting by itself, a thread that came second would put back what the first had made
    of it, for good.

    Args:
        save: notes the setting and returns what puts it back, which bears being called twice.
        change: changes it.
    """

    def __init__(self, save: Callable[[], Callable[[], object]], change: Callable[[], object]) -> None:
        self._save = save
        self._change = change
        self._lock = threading.RLock()
        self._within: list[object] = []
        self._undo: Callable[[], object] | None = None

    @contextmanager
    def within(self) -> Iterator[None]:
        """Inside, the change is made; it stays as long as any thread is inside."""
        token = object()

        def leave() -> None:
            with self._lock:
                if token in self._within:
                    self._within.remove(token)
                if not self._within and self._undo is not None:
                    self._undo()
                    self._undo = None

        with undone(leave):
            with self._lock:
                if not self._within:
                    self._undo = self._save()
                self._within.append(token)
                if len(self._within) == 1:
                    self._change()
            yield


def ignored_warnings(change: Callable[[], object]) -> Shared:
    """Filters of warnings, which are global too: as ``change`` adds to them."""

    def save() -> Callable[[], object]:
        caught = warnings.catch_warnings()
        caught.__enter__()
        return partial(caught.__exit__, None, None, None)

    return Shared(save, change)
