"""Runs the fast tests of a module with a fault in it, in a process of its own, forked where torch is imported."""

from __future__ import annotations

import ast
import doctest
import gc
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import os
import signal
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
_PATIENCE, _LEAST = 5.0, 20.0  # times the unchanged module's seconds, and at least so many
_BEFOREHAND = (
    "torch",
    "torch._dynamo",
    "numpy",
    "torchmetrics",
    "safetensors.torch",
    "pluggy",
    "hypothesis",
)


@dataclass(frozen=True)
class Target:
    """A module, its fast tests, and the functions and constants that count; all where none is named."""

    path: str
    tests: tuple[str, ...]
    only: tuple[str, ...] = ()

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").replace("/", ".")

    @property
    def source(self) -> str:
        return (ROOT / self.path).read_text(encoding="utf-8")


class _Loader(importlib.machinery.SourceFileLoader):
    """Makes a module from a syntax tree."""

    def __init__(self, target: Target, tree: ast.Module) -> None:
        super().__init__(target.module, str(ROOT / target.path))
        self.tree = tree

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return compile(self.tree, self.path, "exec")


class _Finder(importlib.abc.MetaPathFinder):
    """Imports one module by its own loader, all others as ever."""

    def __init__(self, loader: _Loader) -> None:
        self.loader = loader

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        del path, target
        if fullname != self.loader.name:
            return None
        return importlib.util.spec_from_file_location(fullname, self.loader.path, loader=self.loader)


class _FirstFailure:
    """Tells the parent which test failed first; runs those that have killed before, and quick ones, first."""

    def __init__(self, pipe: int, kills: Counter[str], seconds: dict[str, float]) -> None:
        self.pipe, self.kills, self.seconds = pipe, kills, seconds

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items.sort(key=lambda item: (-self.kills[item.nodeid], self.seconds.get(item.nodeid, 0.0)))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            os.write(self.pipe, b"import\n")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os.write(self.pipe, f"failed {report.nodeid}\n".encode())
        elif report.when == "call":
            os.write(self.pipe, f"passed {report.nodeid} {report.duration}\n".encode())


class Harness:
    """Runs a target's tests against a changed module; remembers which tests kill, and how long each takes."""

    def __init__(self) -> None:
        for name in _BEFOREHAND:
            importlib.import_module(name)
        gc.collect()
        gc.freeze()  # half of a short run would go into looking through what is shared
        self.kills: Counter[str] = Counter()
        self.seconds: dict[str, float] = {}
        self.clean: dict[str, float] = {}

    def run(self, target: Target, tree: ast.Module) -> tuple[str, float]:
        """What failed first ("" for nothing), and the seconds it took."""
        reading, writing = os.pipe()
        started = time.monotonic()
        child = os.fork()
        if not child:
            os.close(reading)
            self._in_child(target, tree, writing)
        os.close(writing)
        limit = max(_LEAST, _PATIENCE * self.clean.get(target.path, 120.0))
        code = _wait(child, limit)
        with os.fdopen(reading) as pipe:
            lines = pipe.read().splitlines()
        seconds = time.monotonic() - started
        for line in lines:
            if line.startswith("passed"):
                name, duration = line.removeprefix("passed ").rsplit(" ", 1)
                self.seconds.setdefault(name, float(duration))
        failures = [line.removeprefix("failed ") for line in lines if not line.startswith("passed")]
        if code == 0:
            return "", seconds
        if code is not None and not failures and code not in (1, 2) and code >= 0:
            raise RuntimeError(f"pytest ended with {code} for {target.path}")
        killer = failures[0] if failures else "too slow" if code is None else f"ended with {code}"
        self.kills[killer] += 1
        return killer, seconds

    def _in_child(self, target: Target, tree: ast.Module, pipe: int) -> None:
        os.setsid()
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        sys.meta_path.insert(0, _Finder(_Loader(target, tree)))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio", "-m", "not slow"]
        warnings = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = 3
        try:
            if _examples_fail(target):
                os.write(pipe, b"failed docstring examples\n")
                code = 1
            else:
                plugin = _FirstFailure(pipe, self.kills, self.seconds)
                code = int(pytest.main([*options, *warnings, *target.tests], plugins=[plugin]))
        finally:
            os._exit(code)

    def check(self, target: Target) -> None:
        """The unchanged module passes; one whose functions all raise does not."""
        killer, seconds = self.run(target, ast.parse(target.source))
        if killer:
            raise RuntimeError(f"{target.path}: {killer} fails for the unchanged module")
        self.clean[target.path] = seconds
        tree = ast.parse(target.source)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (not target.only or node.name in target.only):
                node.body = [ast.parse("raise RuntimeError").body[0]]
        broken, _ = self.run(target, ast.fix_missing_locations(tree))
        if not broken:
            raise RuntimeError(f"{target.path}: nothing fails where every function raises")
        print(
            f"{target.path}: the unchanged module passes in {seconds:.1f} s, the broken one fails {broken}", flush=True
        )


def _examples_fail(target: Target) -> bool:
    """Run the examples in the module's docstrings, as tests/test_documentation.py does."""
    import torch

    try:
        names = {"torch": torch, **vars(importlib.import_module("captum_lipschitz"))}
        found = doctest.DocTestFinder(exclude_empty=True).find(importlib.import_module(target.module), extraglobs=names)
    except Exception:  # noqa: BLE001 - whatever the fault brought about
        return True
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    for test in found:
        torch.manual_seed(0)
        if test.examples and runner.run(test).failed:
            return True
    return False


def _wait(child: int, limit: float) -> int | None:
    """The exit code, negative for a signal; None where the child had to be stopped."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None
