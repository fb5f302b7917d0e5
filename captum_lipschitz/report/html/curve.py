"""Accuracy against the size of the change, as a drawing that scales and prints."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from captum_lipschitz.report.html.figures import RHO, fraction, number
from captum_lipschitz.report.html.markup import Html, joined, tag

_WIDTH, _HEIGHT = 560, 330
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 20, 14, 52


@dataclass(frozen=True, kw_only=True)
class Line:
    """One curve: a model's accuracy at rising sizes.

    Attributes:
        name: of the model.
        rho: sizes, finite.
        accuracy: fractions.
        chance: accuracy of guessing, a fraction, where known.
    """

    name: str
    rho: Sequence[float]
    accuracy: Sequence[float]
    chance: float | None


def drawn(lines: Sequence[Line], *, unit: str) -> Html:
    """The curves with their axes; the text alternative says what they show in words.

    Args:
        lines: one or two, at least one with a point.
        unit: of the sizes.
    """
    end = max((rho for line in lines for rho in line.rho), default=0.0) or 1.0
    ticks = _ticks(end)
    end = max(end, ticks[-1])
    parts = [_vertical_axis(), _horizontal_axis(ticks, end, unit)]
    for i, line in enumerate(lines):
        parts.append(_curve(line, end, f"line-{i + 1}", shaded=len(lines) == 1))
    chances = {line.chance for line in lines if line.chance is not None}
    parts += [_chance(chance) for chance in sorted(chances)]
    title = " ".join(in_words(line, unit) for line in lines)
    return tag(
        "svg",
        *parts,
        role="img",
        aria_label=title,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        class_="curve",
        preserveAspectRatio="xMidYMid meet",
    )


def legend(lines: Sequence[Line], names: Sequence[Html]) -> Html:
    """Which line is whose, by its dashes and not by colour alone."""
    items = []
    for i, name in enumerate(names):
        stroke = tag("line", x1=0, y1=6, x2=34, y2=6, class_=f"line-{i + 1}")
        items.append(tag("li", tag("svg", stroke, width=34, height=12, aria_hidden="true", class_="curve"), " ", name))
    if any(line.chance is not None for line in lines):
        stroke = tag("line", x1=0, y1=6, x2=34, y2=6, class_="chance")
        sample = tag("svg", stroke, width=34, height=12, aria_hidden="true", class_="curve")
        items.append(tag("li", sample, " accuracy of guessing"))
    return tag("ul", *items, class_="legend")


def in_words(line: Line, unit: str) -> str:
    """What a curve shows, for those who cannot see it."""
    if not line.rho:
        return f"{line.name}: no curve."
    chance = "" if line.chance is None else f"; guessing would reach {fraction(line.chance)}"
    half = next(
        (rho for rho, share in zip(line.rho, line.accuracy, strict=True) if share <= line.accuracy[0] / 2), None
    )
    halved = "" if half is None else f"; half of it is gone at {number(half)}"
    return (
        f"{line.name}: accuracy falls from {fraction(line.accuracy[0])} at a change of {number(line.rho[0])} to "
        f"{fraction(line.accuracy[-1])} at {number(line.rho[-1])} {unit}{halved}{chance}."
    )


def _across(rho: float, end: float) -> float:
    return _LEFT + (_WIDTH - _LEFT - _RIGHT) * (rho / end)


def _up(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _curve(line: Line, end: float, look: str, *, shaded: bool) -> Html:
    points = _stairs([(_across(rho, end), _up(share)) for rho, share in zip(line.rho, line.accuracy, strict=True)])
    if not points:
        return Html()
    path = tag("polyline", points=_written(points), class_=look)
    if not shaded or line.chance is None:
        return path
    # The area itself: what lies above guessing.
    above = [(x, min(y, _up(line.chance))) for x, y in points]
    floor = [(above[-1][0], _up(line.chance)), (above[0][0], _up(line.chance))]
    return joined([tag("polygon", points=_written(above + floor), class_="area"), path])


def _stairs(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points, each value held until the next one: accuracy is that of each size, not on the way between two."""
    found = list(points[:1])
    for (_, held), (x, y) in pairwise(points):
        found += [(x, held), (x, y)]
    return found


def _chance(share: float) -> Html:
    return tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=f"{_up(share):.1f}", y2=f"{_up(share):.1f}", class_="chance")


def _vertical_axis() -> Html:
    parts = []
    for step in range(5):
        share = step / 4
        y = f"{_up(share):.1f}"
        parts += [
            tag("line", x1=_LEFT, x2=_WIDTH - _RIGHT, y1=y, y2=y, class_="rule"),
            tag("text", f"{step * 25}%", x=_LEFT - 8, y=y, dy="0.35em", text_anchor="end"),
        ]
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    turned = f"rotate(-90 16 {middle:.1f})"
    return joined([*parts, tag("text", "accuracy", x=16, y=f"{middle:.1f}", transform=turned, text_anchor="middle")])


def _horizontal_axis(ticks: Sequence[float], end: float, unit: str) -> Html:
    bottom = _HEIGHT - _BOTTOM
    parts = [
        tag("text", f"{tick:g}", x=f"{_across(tick, end):.1f}", y=bottom + 20, text_anchor="middle") for tick in ticks
    ]
    middle = (_LEFT + _WIDTH - _RIGHT) / 2
    label = f"size of the change {RHO} ({unit})"
    return joined([*parts, tag("text", label, x=f"{middle:.1f}", y=_HEIGHT - 10, text_anchor="middle")])


def _ticks(end: float) -> list[float]:
    """Round numbers from 0 to just past ``end``: four to seven of them."""
    end = min(max(end, 1e-300), 1e300)  # powers of ten beyond are no floats
    raw = end / 5
    scale = 10 ** math.floor(math.log10(raw))
    step = scale * next(nice for nice in (1, 2, 2.5, 5, 10) if nice * scale >= raw * (1 - 1e-9))
    return [step * i for i in range(math.ceil(end / step - 1e-9) + 1)]


def _written(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
