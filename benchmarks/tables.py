"""Records as Markdown tables: one for each network, box and criterion."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from records import AUTHORS, Record
from torch import Tensor

from captum_lipschitz.metrics.area import area

_CLOSE = 1.01  # of the best answer: counted as optimal
_COLUMNS = ("attack", "ARA", "ratio", "within 1% of best", "not found", "gradients, mean", "max", "seconds")


def tables(records: Sequence[Record]) -> Iterator[str]:
    """One table for each network, images, box and criterion, in the records' order."""
    groups: dict[tuple[str, int, int, bool], list[Record]] = {}
    for record in records:
        if record.measured:
            groups.setdefault(_images_of(record), []).append(record)
    for (network, first, count, boxed), group in groups.items():
        for criterion in dict.fromkeys(record.criterion for record in group):
            others = [
                record
                for record in records
                if (record.network, record.first, record.boxed) == (network, first, boxed)
                and not record.measured
                and record.criterion == criterion
            ]
            chosen = [record for record in group if record.criterion == criterion]
            where = "in the box [0, 1]" if boxed else "unbounded"
            title = f"**{network}**, images {first} to {first + count - 1}, `{criterion}`, {where}"
            yield f"{title}. {_table(chosen, others)}"


def _images_of(record: Record) -> tuple[str, int, int, bool]:
    return record.network, record.first, len(record.distances), record.boxed


def _table(measured: list[Record], others: list[Record]) -> str:
    """What the ratio is to, then the table."""
    distances = torch.tensor([record.distances for record in measured], dtype=torch.float64)
    best = distances.amin(0)
    unsolved = best > 0
    authors = [record for record in others if record.attack == AUTHORS and len(record.distances) == len(best)]
    reference = next(
        iter([*authors, *(record for record in measured if record.attack.startswith("PaperAttack"))]), None
    )
    named = f"{int(unsolved.sum())} images are not solved at the start."
    named += f" Ratio: geometric mean to {reference.attack}.\n\n" if reference else "\n\n"
    lines = ["| " + " | ".join(_COLUMNS) + " |", "| --- " * len(_COLUMNS) + "|"]
    baseline = torch.tensor(reference.distances, dtype=torch.float64) if reference else torch.full_like(best, math.nan)
    lines += [_row(record.attack, _area(record.distances, measured[0].chance), "1.000") for record in authors]
    for record, found in zip(measured, distances, strict=True):
        spent = torch.tensor(record.gradients, dtype=torch.float64)[unsolved]
        cost = (f"{spent.mean():.0f}", f"{spent.max():.0f}") if len(spent) else ("0", "0")
        lines.append(
            _row(
                record.attack,
                _area(record.distances, record.chance),
                _ratio(found, baseline, unsolved),
                f"{(found <= _CLOSE * best)[unsolved & best.isfinite()].double().mean():.2f}",
                str(int(found.isinf().sum())),
                *cost,
                f"{record.seconds:.1f}",
            )
        )
    lines.append(
        _row(
            "best of all",
            _area(best.tolist(), measured[0].chance),
            _ratio(best, baseline, unsolved),
            "1.00",
            str(int(best.isinf().sum())),
        )
    )
    ran = {record.attack for record in measured}
    lines += [_row(record.attack) for record in others if record.refused and record.attack not in ran]
    return named + "\n".join(lines) + "\n"


def _row(attack: str, *cells: str) -> str:
    return "| " + " | ".join([f"`{attack}`" if "(" in attack else attack, *cells, *["-"] * (7 - len(cells))]) + " |"


def _area(distances: list[float], chance: float) -> str:
    values = torch.tensor(distances, dtype=torch.float64)
    whole = area(values, chance)
    return f"{whole:.4g}" if math.isfinite(whole) else f"inf ({area(values, chance, truncated=True):.4g} truncated)"


def _ratio(found: Tensor, baseline: Tensor, unsolved: Tensor) -> str:
    """Geometric mean of the ratios, over the images that both have an answer for."""
    both = unsolved & found.isfinite() & baseline.isfinite() & (baseline > 0)
    return f"{(found / baseline)[both].log().mean().exp():.3f}" if bool(both.any()) else "-"
