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
import json
import os
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import mutation_operators
from mutation_harness import ROOT, Harness, Target
from mutation_operators import Mutant

TARGETS = (
    Target("captum_lipschitz/geometry.py", ("tests/test_geometry.py", "tests/test_bounds.py")),
    Target("captum_lipschitz/criteria.py", ("tests/test_criteria.py",)),
    Target("captum_lipschitz/metrics/area.py", ("tests/metrics/test_area.py",)),
    Target("captum_lipschitz/training/penalty.py", ("tests/training/test_penalty.py",)),
    Target("captum_lipschitz/training/strength.py", ("tests/training/test_strength.py",)),
    Target(
        "captum_lipschitz/attacks/minimum_norm.py",
        ("tests/attacks/test_projection_step.py",),
        ("_advance", "_step", "_MOMENTUM", "_DECAY", "_PULL", "_OVERSHOOT_GROWTH", "_OVERSHOOT_RANGE"),
    ),
)


@dataclass
class Outcome:
    """What became of a mutant: ``killer`` is the test that failed, "too slow", or empty where none did.

    ``difference`` is that of a survivor.
    """

    path: str
    operator: str
    name: str
    killer: str
    seconds: float
    difference: str


def sample(seed: int, size: int) -> list[tuple[Target, Mutant]]:
    """So many mutants, each file's share by how many it has; the same for the same source and seed."""
    everything = [(target, everything_of(target)) for target in TARGETS]
    total = sum(len(found) for _, found in everything)
    generator = random.Random(seed)  # noqa: S311
    chosen: list[tuple[Target, Mutant]] = []
    upto = 0
    for target, found in everything:
        share = round(size * (upto + len(found)) / total) - round(size * upto / total)
        upto += len(found)
        chosen += [(target, mutant) for mutant in generator.sample(found, min(share, len(found)))]
    generator.shuffle(chosen)  # what has been done when a run is cut short is a sample as well
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
        for value in sorted({getattr(outcome, key) for outcome in outcomes}):
            some = [outcome for outcome in outcomes if getattr(outcome, key) == value]
            slow = sum(outcome.killer == "too slow" for outcome in some)
            yield f"| {value} | {len(some)} | {sum(bool(outcome.killer) for outcome in some)} | {slow} |"
    for outcome in sorted(outcomes, key=lambda outcome: outcome.name):
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
    os.chdir(ROOT)
    os.environ.setdefault("CAPTUM_LIPSCHITZ_HYPOTHESIS", "quick")
    chosen = sample(arguments.seed, arguments.size)
    if arguments.names:
        chosen = [(t, m) for t in TARGETS for m in everything_of(t) if m.name in arguments.names]
    chosen = [(target, mutant) for target, mutant in chosen if arguments.only in target.path]
    harness = Harness()
    for target in TARGETS:
        if any(target == other for other, _ in chosen):
            harness.check(target)
    outcomes = []
    with arguments.output.open("w", encoding="utf-8") as file:
        for target, mutant in chosen:
            killer, seconds = harness.run(target, mutant.tree(target.source))
            difference = "" if killer else mutant.difference(target.source)
            outcomes.append(Outcome(target.path, mutant.operator, mutant.name, killer, round(seconds, 2), difference))
            file.write(json.dumps(asdict(outcomes[-1])) + "\n")
            file.flush()
    print("\n".join(report(outcomes)))


if __name__ == "__main__":
    main()
