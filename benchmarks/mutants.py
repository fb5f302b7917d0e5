"""Mutation testing: how many small faults in the core's arithmetic do its fast tests notice?

Run from the repository's root; a sample of 300 takes a quarter of an hour or so on one core:

    python benchmarks/mutants.py --seed 0 --output mutants-0.jsonl

Each mutant runs in a process of its own, forked where torch is imported already, and imports the package with one fault
in one module. The module's fast tests then run until one fails; what takes five times as long as the unchanged module
is noticed too. The sample is stratified: each file has its share of the 300. First of all the harness is tried: the
tests of an unchanged module must pass, those of a module whose functions all raise must fail.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import mutation_operators
import pytest
from mutation_operators import Mutant

_ROOT = Path(__file__).resolve().parents[1]
_PATIENCE, _LEAST = 5.0, 20.0  # times the unchanged module's seconds, and at least so many
_BEFOREHAND = (
    "torch",
    "numpy",
    "torchmetrics",
    "matplotlib.pyplot",
    "safetensors.torch",
    "pluggy",
    "hypothesis",
    "doctest",
    "captum.attr",
    "torch._dynamo",
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
        return (_ROOT / self.path).read_text(encoding="utf-8")

    def arguments(self) -> list[str]:
        return [*self.tests, f"tests/test_documentation.py::test_docstring_examples[{self.module}]"]


TARGETS = (
    Target("captum_lipschitz/geometry.py", ("tests/test_geometry.py",)),
    Target("captum_lipschitz/criteria.py", ("tests/test_criteria.py",)),
    Target("captum_lipschitz/metrics/area.py", ("tests/metrics/test_area.py",)),
    Target("captum_lipschitz/training/penalty.py", ("tests/training/test_penalty.py",)),
    Target("captum_lipschitz/training/strength.py", ("tests/training/test_strength.py",)),
    Target(
        "captum_lipschitz/attacks/minimum_norm.py",
        ("tests/attacks/test_minimum_norm.py",),
        ("_advance", "_step", "_MOMENTUM", "_DECAY", "_PULL", "_OVERSHOOT_GROWTH", "_OVERSHOOT_RANGE"),
    ),
)


@dataclass
class Outcome:
    """What became of a mutant: ``killer`` is the test that failed, "too slow", or empty where none did."""

    path: str
    operator: str
    name: str
    killer: str
    seconds: float
    difference: str


class _Faulty(importlib.abc.MetaPathFinder, importlib.machinery.SourceFileLoader):
    """Imports one module from a syntax tree, all others as ever."""

    def __init__(self, target: Target, tree: ast.Module) -> None:
        super().__init__(target.module, str(_ROOT / target.path))
        self.tree = tree

    def find_spec(self, fullname: str, path: Any, target: ModuleType | None = None) -> Any:
        del path, target
        return (
            importlib.util.spec_from_file_location(fullname, self.path, loader=self) if fullname == self.name else None
        )

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return compile(self.tree, self.path, "exec")


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
        sys.meta_path.insert(0, _Faulty(target, tree))
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:anyio", "-m", "not slow"]
        warnings = ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
        code = 3
        try:
            plugin = _FirstFailure(pipe, self.kills, self.seconds)
            code = int(pytest.main([*options, *warnings, *target.arguments()], plugins=[plugin]))
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


def sample(seed: int, size: int) -> list[tuple[Target, Mutant]]:
    """So many mutants, each file's share by how many it has; the same for the same source and seed."""
    everything = [(target, everything_of(target)) for target in TARGETS]
    total = sum(len(found) for _, found in everything)
    generator = random.Random(seed)
    chosen: list[tuple[Target, Mutant]] = []
    upto = 0
    for target, found in everything:
        share = round(size * (upto + len(found)) / total) - round(size * upto / total)
        upto += len(found)
        chosen += [(target, mutant) for mutant in generator.sample(found, min(share, len(found)))]
    return chosen


def everything_of(target: Target) -> list[Mutant]:
    """Every mutant of a target."""
    return mutation_operators.mutants(Path(target.path), target.source, target.only)


def report(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """The result as Markdown: by file, by kind of fault, and the survivors."""
    killed = [outcome for outcome in outcomes if outcome.killer]
    yield f"{len(killed)} of {len(outcomes)} killed ({len(killed) / len(outcomes):.1%})."
    for title, key in (("file", "path"), ("fault", "operator")):
        yield f"\n| {title} | mutants | killed | too slow |\n| --- | --- | --- | --- |"
        for value in dict.fromkeys(getattr(outcome, key) for outcome in outcomes):
            some = [outcome for outcome in outcomes if getattr(outcome, key) == value]
            slow = sum(outcome.killer == "too slow" for outcome in some)
            yield f"| {value} | {len(some)} | {sum(bool(outcome.killer) for outcome in some)} | {slow} |"
    for outcome in outcomes:
        if not outcome.killer:
            yield f"\n`{outcome.name}`\n\n```diff\n{outcome.difference}\n```"


def main() -> None:
    """Run a sample, write one line of JSON for each mutant as it is done, and print the result."""
    parser = argparse.ArgumentParser(description="Mutation testing of the core's arithmetic.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--size", type=int, default=300)
    parser.add_argument("--only", default="", help="a file's name: only its mutants of the sample")
    parser.add_argument("--names", nargs="*", default=[], help="these mutants instead of a sample")
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    os.chdir(_ROOT)
    os.environ.setdefault("CAPTUM_LIPSCHITZ_HYPOTHESIS", "quick")
    for name in _BEFOREHAND:
        importlib.import_module(name)
    chosen = sample(arguments.seed, arguments.size)
    if arguments.names:
        chosen = [(t, m) for t in TARGETS for m in everything_of(t) if m.name in arguments.names]
    chosen = [(target, mutant) for target, mutant in chosen if arguments.only in target.path]
    harness = Harness()
    for target in dict.fromkeys(target for target, _ in chosen):
        harness.check(target)
    outcomes = []
    with arguments.output.open("w", encoding="utf-8") as file:
        for target, mutant in chosen:
            killer, seconds = harness.run(target, mutant.tree(target.source))
            difference = mutant.difference(target.source)
            outcomes.append(Outcome(target.path, mutant.operator, mutant.name, killer, round(seconds, 2), difference))
            file.write(json.dumps(asdict(outcomes[-1])) + "\n")
            file.flush()
    print("\n".join(report(outcomes)))


if __name__ == "__main__":
    main()
