"""Settings of the whole program that several threads want changed for a while."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager

from captum_lipschitz._trace import undone


class Shared:
    """A change that the first of several threads makes, and the last of them undoes.

    If each saved and restored the setting by itself, a thread that came second would put back what the first had made
    of it, for good.

    Args:
        change: makes a context manager that changes the setting, and puts it back.
    """

    def __init__(self, change: Callable[[], AbstractContextManager[object]]) -> None:
        self._change = change
        self._lock = threading.RLock()
        self._within: list[object] = []
        self._changed = ExitStack()

    @contextmanager
    def within(self) -> Iterator[None]:
        """Inside, the change is made; it stays as long as any thread is inside."""
        token = object()

        def leave() -> None:
            with self._lock:
                if token in self._within:
                    self._within.remove(token)
                if not self._within:
                    self._changed.close()

        with undone(leave):
            with self._lock:
                self._within.append(token)
                if len(self._within) == 1:
                    self._changed.enter_context(self._change())
            yield
