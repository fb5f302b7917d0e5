"""The comparison as Markdown, from the runs' folders."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from captum_lipschitz._files import write_whole
from captum_lipschitz.errors import InvalidInputError
from cifar10_training.comparison import Comparison, Point, compare_at_equal_accuracy
from cifar10_training.methods import METHODS
from cifar10_training.runs import Run, read_run

Runs = dict[str, dict[float, dict[int, Run]]]
"""By method, value of its knob, and seed."""


def read_comparison(output: Path) -> Runs:
    """All measured runs below a folder that compare.py wrote.

    Raises:
        InvalidInputError: there is none.
    """
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    for method in METHODS:
        for path in sorted((output / method).glob("*/seed-*")):
            run = read_run(path)
            if run.figures:
                runs[method][float(path.parent.name)][run.seed] = run
    if not runs:
        raise InvalidInputError(f"output: expected runs of compare.py below {output}, got none")
    return runs


def write_tables(output: Path) -> str:
    """Write ``comparison.md`` into the folder, and return its text."""
    runs = read_comparison(output)
    text = f"{_conditions(runs)}\n\n{all_runs(runs)}\n\n{at_equal_accuracy(runs)}\n"
    write_whole(output / "comparison.md", text.encode())
    return text


def all_runs(runs: Runs) -> str:
    """One row for each method and setting, over the seeds."""
    lines = [
        "| method | setting | accuracy | attack ARA | BTR ARA | BTR, fitted | not found | CPU seconds | strength |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for method, settings in runs.items():
        for value, seeds in sorted(settings.items()):
            chosen = [seeds[seed] for seed in sorted(seeds)]
            cells = [
                METHODS[method].title,
                f"{METHODS[method].knob} {value:g}" + (" of the whole" if METHODS[method].knob == "epochs" else ""),
                _spread((run.figures["accuracy"] for run in chosen), 3),
                _spread((run.figures["attack"]["area"] for run in chosen), 5),
                *(_areas(chosen, name) for name in ("below_chance", "below_chance_fitted")),
                str(sum(run.figures["attack"]["not_found"] for run in chosen)),
                _spread((run.training["cpu_seconds"] for run in chosen), 0),
                _spread((run.training["strength"] for run in chosen), 0),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    counts = sorted({len(of_one) for settings in runs.values() for of_one in settings.values()})
    lines.append(
        f"\nMedian (least to most) over {' or '.join(str(count) for count in counts)} seeds; BTR ARA, raw and at a "
        "temperature fitted on held-out images, of the seeds and images that it was measured on."
    )
    return "\n".join(lines)


def at_equal_accuracy(runs: Runs) -> str:
    """Ratios of areas between every two methods whose curves have an accuracy in common."""
    lines = [
        "| attack ARA of | over that of | at accuracy | areas | ratio, 95% interval | by seed |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    names = list(runs)
    for place, second in enumerate(names):
        for first in names[place + 1 :]:
            found = compared(runs, first, second)
            titles = f"| {METHODS[first].title} | {METHODS[second].title} |"
            if found is None:
                lines.append(f"{titles} none in common | | | |")
                continue
            low, high = found.interval
            seeds = ", ".join(f"{one:.2f}" for one in found.by_seed)
            lines.append(
                f"{titles} {found.where} | {found.areas[0]:.5f}, {found.areas[1]:.5f} "
                f"| **{found.ratio:.2f}** [{low:.2f}, {high:.2f}] | {seeds} |"
            )
    return "\n".join(lines)


def compared(runs: Runs, first: str, second: str) -> Comparison | None:
    """Two methods over the seeds that both have in full; ``None`` where they cannot be."""
    common = sorted(set(_whole_seeds(runs[first])) & set(_whole_seeds(runs[second])))
    if not common:
        return None
    curves = [
        [[Point.of(by_seed[seed]) for by_seed in runs[name].values()] for seed in common] for name in (first, second)
    ]
    return compare_at_equal_accuracy(*curves)


def _whole_seeds(settings: dict[float, dict[int, Run]]) -> list[int]:
    """Seeds that every setting of a method was run with."""
    return [seed for seed in range(1000) if all(seed in seeds for seeds in settings.values())]


def _conditions(runs: Runs) -> str:
    """What holds for all runs: hardware, versions, instrument."""
    every = [run for settings in runs.values() for seeds in settings.values() for run in seeds.values()]
    said = {
        f"{run.machine['processor']} ({run.machine['threads']} threads), Python {run.machine['python']}, "
        + ", ".join(f"{package} {release}" for package, release in run.machine["versions"].items())
        + f". MinimumNormAttack, {run.figures['instrument']['effort']}, on {run.figures['instrument']['images']} of "
        f"{len(run.figures['correct'])} test images."
        for run in every
    }
    return "\n".join(sorted(said))


def _areas(runs: list[Run], name: str) -> str:
    """Of the runs that have it: ``compare.py --below-chance-seeds`` measures fewer."""
    found = [run.figures[name]["area"] for run in runs if name in run.figures]
    return _spread(found, 4) if found else ""


def _spread(values: Iterable[float | None], places: int) -> str:
    """Median, least and most; infinite areas, which JSON has as null, by name."""
    known = [float("inf") if value is None else value for value in values]
    middle = f"{statistics.median(known):.{places}f}"
    return middle if len(known) == 1 else f"{middle} ({min(known):.{places}f} to {max(known):.{places}f})"
