"""The comparison as Markdown, from the runs' folders."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from captum_lipschitz._files import write_whole
from captum_lipschitz.errors import InvalidInputError
from cifar10_training.comparison import Comparison, Point, compare_at_equal_accuracy
from cifar10_training.methods import METHODS
from cifar10_training.runs import Run, is_trained, read_run

Runs = dict[str, dict[float, dict[int, Run]]]
"""By method, value of its knob, and seed."""


def read_comparison(output: Path) -> Runs:
    """All measured runs below a folder that compare.py wrote; those of settings that it no longer has are left out.

    Raises:
        InvalidInputError: there is none, or they are not of one kind: shortened and whole, other images or instruments.
    """
    runs: Runs = defaultdict(lambda: defaultdict(dict))
    kinds: dict[str, Path] = {}
    for method, settings in METHODS.items():
        for shortened in (True, False):
            for value, recipe in settings.recipes(shortened=shortened):
                for path in sorted((output / method / f"{value:g}").glob("seed-*")):
                    run = read_run(path) if is_trained(path) else None
                    if run is not None and run.figures and run.recipe == recipe:
                        runs[method][value][run.seed] = run
                        kinds[_kind(run, shortened=shortened)] = path
    if not runs:
        raise InvalidInputError(f"output: expected runs of compare.py below {output}, got none")
    if len(kinds) > 1:
        listing = "; ".join(f"{path}: {kind}" for kind, path in kinds.items())
        raise InvalidInputError(f"output: expected runs of one kind below {output}, got {listing}")
    return runs


def write_tables(output: Path) -> str:
    """Write ``comparison.md`` into the folder, and return its text."""
    runs = read_comparison(output)
    text = f"{_conditions(runs)}\n\n{all_runs(runs)}\n\n{at_equal_accuracy(runs)}\n"
    write_whole(output / "comparison.md", text.encode())
    return text


def all_runs(runs: Runs) -> str:
    """One row for each method and setting, over the seeds."""
    clock = "seconds" if _any(runs).machine["device"] == "cuda" else "cpu_seconds"
    head = ["method", "setting", "seeds", "accuracy", "attack ARA", "BTR ARA", "BTR, fitted", "not found, all seeds"]
    head += [f"training, {clock.replace('cpu_', 'CPU ')}", "strength"]
    lines = [f"| {' | '.join(head)} |", f"| {' | '.join('---' for _ in head)} |"]
    for method, settings in runs.items():
        for value, seeds in sorted(settings.items()):
            chosen = [seeds[seed] for seed in sorted(seeds)]
            cells = [
                METHODS[method].title,
                f"{METHODS[method].knob} {value:g}" + (" of the whole" if METHODS[method].knob == "epochs" else ""),
                str(len(chosen)),
                _spread((run.figures["accuracy"] for run in chosen), 3),
                *(_areas(chosen, name, places) for name, places in _AREAS.items()),
                str(sum(run.figures["attack"]["not_found"] for run in chosen)),
                _spread((run.training[clock] for run in chosen), 0),
                _spread((run.training["strength"] for run in chosen), 0),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", f"Median (least to most) over the seeds. {_NOTE}"])


_AREAS = {"attack": 5, "below_chance": 4, "below_chance_fitted": 4}
_NOTE = (
    "BTR ARA, raw and at a temperature fitted on held-out images, is of the seeds and images that it was measured on."
)


def at_equal_accuracy(runs: Runs) -> str:
    """Ratios of areas between every two methods, where both are at least so accurate."""
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
                lines.append(f"{titles} | no ratio: an area of 0 or infinity, or no seed with all settings | | |")
                continue
            low, high = found.interval
            seeds = ", ".join(f"{one:.2f}" for one in found.by_seed)
            lines.append(
                f"{titles} {found.accuracy:.3f} | {found.areas[0]:.5f}, {found.areas[1]:.5f} "
                f"| **{found.ratio:.2f}** [{low:.2f}, {high:.2f}] | {seeds} |"
            )
    return "\n".join(lines)


def compared(runs: Runs, first: str, second: str, *, accuracy: float | None = None) -> Comparison | None:
    """Two methods over the seeds that both have in full; ``None`` where they cannot be."""
    common = sorted(set(_whole_seeds(runs[first])) & set(_whole_seeds(runs[second])))
    if not common:
        return None
    curves = [
        [[Point.of(by_seed[seed]) for by_seed in runs[name].values()] for seed in common] for name in (first, second)
    ]
    return compare_at_equal_accuracy(*curves, accuracy=accuracy)


def _whole_seeds(settings: dict[float, dict[int, Run]]) -> set[int]:
    """Seeds that every setting of a method was run with."""
    return set.intersection(*(set(seeds) for seeds in settings.values()))


def _any(runs: Runs) -> Run:
    return next(run for settings in runs.values() for seeds in settings.values() for run in seeds.values())


def _kind(run: Run, *, shortened: bool) -> str:
    """What runs must have in common to stand in one table; the BTR areas may be measured of some seeds only."""
    instrument = {name: value for name, value in run.figures["instrument"].items() if name != "below_chance"}
    return f"{'shortened' if shortened else 'whole'}, measured by {instrument}, images {run.data}"


def _conditions(runs: Runs) -> str:
    """Hardware, versions, instrument."""
    every = [run for settings in runs.values() for seeds in settings.values() for run in seeds.values()]
    said = {
        f"{run.machine['processor']} ({run.machine['threads']} threads), Python {run.machine['python']}, "
        + ", ".join(f"{package} {release}" for package, release in run.machine["versions"].items())
        + f". MinimumNormAttack, {run.figures['instrument']['effort']}, on {len(run.figures['attack']['distances'])} "
        f"of {len(run.figures['correct'])} {run.figures['instrument']['part']} images."
        for run in every
    }
    return "\n".join(sorted(said))


def _areas(runs: list[Run], name: str, places: int) -> str:
    """Of the runs that have it: ``compare.py --below-chance-seeds`` measures fewer."""
    found: list[dict[str, Any]] = [run.figures[name] for run in runs if name in run.figures]
    return _spread((one["area"] for one in found), places) if found else ""


def _spread(values: Iterable[float | None], places: int) -> str:
    """Median, least and most; infinite areas, which JSON has as null, by name."""
    known = [float("inf") if value is None else value for value in values]
    middle = f"{statistics.median(known):.{places}f}"
    return middle if len(known) == 1 else f"{middle} ({min(known):.{places}f} to {max(known):.{places}f})"
