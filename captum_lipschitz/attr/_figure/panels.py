"""The single panels of a figure of attributions, each drawn into axes that are there already."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure
from matplotlib.font_manager import FontProperties
from matplotlib.image import AxesImage
from matplotlib.patches import Patch
from matplotlib.textpath import text_to_path

from captum_lipschitz.attr._figure.layout import Layout
from captum_lipschitz.attr._figure.wording import Wording

BEFORE = "0.6"  # grey, as the colours are the heat map's; what is after takes the texts' colour
PLAIN_FROM, PLAIN_TO = 1e-3, 1e5  # sizes written without an exponent
PLAIN: dict[str, Any] = {"parse_math": False}  # the caller's texts may hold dollars
SMALL, NORMAL, LARGE = 7.0, 8.0, 9.5  # points


def draw_image(axes: Axes, array: np.ndarray[Any, Any]) -> AxesImage:
    """An image in [0, 1], its pixels as they are."""
    bare(axes)
    return axes.imshow(array, cmap="gray", vmin=0, vmax=1, interpolation="nearest", origin="upper")


def draw_heat(axes: Axes, heat: np.ndarray[Any, Any], limit: float, cmap: Any) -> AxesImage:
    """A signed map, (H, W), zero in the middle of the colours."""
    bare(axes)
    return axes.imshow(heat, cmap=cmap, vmin=-limit, vmax=limit, interpolation="nearest", origin="upper")


def draw_bar(
    axes: Axes, heat: AxesImage, limit: float, *, clipped: bool, label: str = "", upright: bool = True
) -> None:
    """A colour bar with three marks, its ends pointed where values lie beyond."""
    figure = axes.figure
    bar = figure.colorbar(
        heat,
        cax=axes,
        orientation="vertical" if upright else "horizontal",
        extend="both" if clipped else "neither",
        extendfrac=0.08,
    )
    bar.set_ticks([-limit, 0, limit], labels=[f"\N{MINUS SIGN}{short(limit)}", "0", f"+{short(limit)}"])
    bar.ax.tick_params(labelsize=SMALL, length=2, pad=1.5)
    bar.set_label(label, fontsize=NORMAL, **PLAIN)
    if not upright:
        first, _, last = bar.ax.get_xticklabels()
        first.set_horizontalalignment("left")
        last.set_horizontalalignment("right")


def draw_probabilities(
    axes: Axes,
    before: np.ndarray[Any, Any],
    after: np.ndarray[Any, Any],
    own: int | None,
    slots: int,
    name: Callable[[int], str],
) -> None:
    """Bars for some classes, before and after: the column's own class in bold, then the most probable ones."""
    ranked = [int(c) for c in np.argsort(-np.maximum(before, after), kind="stable")]
    shown = ([own] if own is not None else []) + [c for c in ranked if c != own]
    shown = shown[:slots]
    bare(axes, frame=False)
    axes.set(xlim=(0, 1), ylim=(len(shown), 0))
    width = axes.bbox.width / axes.figure.dpi
    ink = mpl.rcParams["text.color"]
    for slot, c in enumerate(shown):
        weight = "bold" if c == own else "normal"
        numbers = f"{percent(before[c])} \N{RIGHTWARDS ARROW} {percent(after[c])}%"
        room = width - 0.6 * SMALL / 72 * (len(numbers) + 1)
        font: dict[str, Any] = {"fontsize": SMALL, "fontweight": weight, "va": "center", **PLAIN}
        axes.text(0, slot + 0.28, fitted(name(c), room, SMALL, bold=c == own), ha="left", **font)
        axes.text(1, slot + 0.28, numbers, ha="right", **font)
        for offset, values, color in ((0.62, before, BEFORE), (0.8, after, ink)):
            axes.barh(slot + offset, float(values[c]), height=0.18, color=color)
        axes.plot((0, 0), (slot + 0.5, slot + 0.92), color="0.5", linewidth=0.6)


def draw_foot(figure: Figure | SubFigure, layout: Layout, wording: Wording) -> None:
    """Which bar is which, and whether values were clamped, at the foot of the figure."""
    bottom = 0.04 / layout.size[1]
    if not layout.legend:
        text = f"{wording.changed}: {wording.clamped}" if layout.wide else wording.clamped
        figure.text(0.5, bottom, text, ha="center", va="bottom", fontsize=NORMAL)
        return
    after = f"after: {wording.changed}"
    if wording.clamped:
        after += f", {wording.clamped}" if layout.wide else f",\n{wording.clamped}"
    figure.legend(
        handles=[Patch(color=BEFORE, label="before: image"), Patch(color=mpl.rcParams["text.color"], label=after)],
        loc="lower center",
        ncols=2 if layout.wide else 1,
        frameon=False,
        fontsize=NORMAL,
        borderaxespad=0.1,
        bbox_to_anchor=(0.5, bottom),
    )


def bare(axes: Axes, *, frame: bool = True) -> None:
    """No ticks; a hairline around pictures, so that white ones end somewhere."""
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(visible=frame, linewidth=0.5, color=mpl.rcParams["axes.edgecolor"])


def short(size: float) -> str:
    """A positive number to two digits, plain where that is readable.

    Example:
        >>> short(257.0), short(0.00123), short(2.0), short(3.1e-7)
        ('260', '0.0012', '2', '3.1e-07')
    """
    text = f"{size:.2g}"
    return np.format_float_positional(float(text), trim="-") if PLAIN_FROM <= size < PLAIN_TO else text


def percent(probability: float) -> str:
    """Whole percent, and no 0 or 100 for what is neither.

    Example:
        >>> percent(0.314), percent(0.0001), percent(0.999), percent(1.0)
        ('31', '<1', '>99', '100')
    """
    rounded = f"{100 * probability:.0f}"
    if rounded == "0" and probability > 0:
        return "<1"
    return ">99" if rounded == "100" and probability < 1 else rounded


def fitted(text: str, width: float, points: float, *, bold: bool = False) -> str:
    """The text, or as much of it as fits into ``width`` inches, an ellipsis in place of the rest."""
    font = FontProperties(size=points, weight="bold" if bold else "normal")

    def fits(part: str) -> bool:
        return bool(text_to_path.get_text_width_height_descent(part, font, ismath=False)[0] <= 72 * width)

    if fits(text):
        return text
    cuts = (text[:end].rstrip() + "\N{HORIZONTAL ELLIPSIS}" for end in range(len(text) - 1, 0, -1))
    return next(filter(fits, cuts), "")
