"""Ctrl-C at a chosen place: ``KeyboardInterrupt`` at the k-th line of Python that a call runs."""

from __future__ import annotations

import ast
import gc
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Any

import captum_lipschitz

PACKAGE = str(Path(captum_lipschitz.__file__).parent)
_LAST: list[KeyboardInterrupt] = []  # kept, as a notebook keeps it, with all that its frames hold
CONTEXTS = ("contextlib.py", "grad_mode.py")  # Python's and torch's own, which ours are made with


@cache
def _lines_of_with(path: str) -> frozenset[int]:
    """The lines of ``with`` statements.

    They come a second time when the block ends, at a place where Python looks for no signal: nothing could come there.
    """
    tree = ast.parse(Path(path).read_text(encoding="utf-8"))
    found: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.With, ast.AsyncWith)):
            found |= set(range(node.lineno, node.body[0].lineno))
    return frozenset(found)


class Interrupting:
    """Counts lines, of this package and of what contexts are made with, and raises at one of them.

    Args:
        at: the line, from 1; 0 for none.
    """

    def __init__(self, at: int = 0) -> None:
        self.at = at
        self.lines = 0
        self.place = ""

    @contextmanager
    def running(self) -> Iterator[None]:
        before = sys.gettrace()
        _LAST.clear()  # what an earlier interruption left is dropped now, and not among the lines that are counted
        gc.disable()
        sys.settrace(self._call)
        try:
            yield
        finally:
            sys.settrace(before)
            gc.enable()

    def _call(self, frame: FrameType, event: str, argument: Any) -> Any:
        path = frame.f_code.co_filename
        return self._line if path.startswith(PACKAGE) or path.endswith(CONTEXTS) else None

    def _line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line" and frame.f_lineno not in _lines_of_with(frame.f_code.co_filename):
            self.lines += 1
            if self.lines == self.at:
                self.place = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self._line


def lines_of(call: Callable[[], object]) -> int:
    """How many lines a call runs."""
    counting = Interrupting()
    with counting.running():
        call()
    return counting.lines


def interrupted_at(call: Callable[[], object], at: int) -> str:
    """Run a call and interrupt it; where it was, or ``""`` where it ended before."""
    breaking = Interrupting(at)
    try:
        with breaking.running():
            call()
    except KeyboardInterrupt as error:
        _LAST[:] = [error]
        return breaking.place
    return ""


def sampled(lines: int, number: int, seed: int) -> list[int]:
    """Places among so many lines: some of the first and last, where things are begun and put back, and others."""
    draws = random.Random(seed)  # noqa: S311
    ends = [*range(1, min(lines, 40), 3), *range(max(1, lines - 40), lines + 1, 3)]
    return sorted({*draws.sample(ends, min(len(ends), number // 2)), *(draws.randint(1, lines) for _ in range(number))})
