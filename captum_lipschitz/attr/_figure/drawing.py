"""From checked arguments to a figure: which panel shows what."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure
from matplotlib.image import AxesImage
from torch import Tensor

from captum_lipschitz.attr._figure import panels
from captum_lipschitz.attr._figure.layout import LINE, Layout
from captum_lipschitz.attr._figure.pictured import Pictured
from captum_lipschitz.attr._figure.wording import Wording


@dataclass(frozen=True)
class ColourScale:
    """Where the colours of each heat map end.

    Attributes:
        limits: of each heat map, (N, K), positive.
        clipped: whether values lie beyond, (N, K).
    """

    limits: np.ndarray[Any, Any]
    clipped: np.ndarray[Any, Any]

    @classmethod
    def of(cls, heat: Tensor, shared: str, percentile: float) -> ColourScale:
        """Limits shared by all maps, those of an image, those of a column, or by none."""
        size = np.abs(heat.numpy())
        axes = {"all": (0, 1, 2, 3), "image": (1, 2, 3), "column": (0, 2, 3), "panel": (2, 3)}[shared]
        limits, largest = np.percentile(size, percentile, axes, keepdims=True), size.max(axes, keepdims=True)
        limits = np.where(limits > 0, limits, largest)  # a map that is zero nearly everywhere
        limits = np.where(limits > 0, limits, 1.0)  # or everywhere
        return cls(*(np.broadcast_to(a[..., 0, 0], size.shape[:2]) for a in (limits, largest > limits)))


@dataclass(frozen=True)
class Drawing:
    """Everything that a figure shows.

    Attributes:
        before: probabilities of the images, (N, M), where known.
        after: of the images plus each perturbation, (N, K, M), where known.
        own: the class that each column explains, (N, K), where known.
    """

    pictured: Pictured
    layout: Layout
    scale: ColourScale
    cmap: Colormap
    wording: Wording
    before: Tensor | None
    after: Tensor | None
    own: Tensor | None

    def draw(self, figure: Figure | SubFigure) -> None:
        """Draw into a figure, whatever its size."""
        layout = self.layout
        for n in range(layout.num_images):
            if layout.image:
                self._image(layout.image_axes(figure, n), n)
            for k in range(layout.num_columns):
                heat = self._column(figure, n, k)
            if heat is not None and (layout.bars == "image" or (layout.bars == "figure" and n == 0)):
                axes = layout.bar_axes(figure, n if layout.bars == "image" else None)
                panels.draw_bar(
                    axes, heat, self.scale.limits[n, 0], clipped=self.scale.clipped[n, 0], label=self.wording.label
                )
        if layout.legend or layout.note:
            panels.draw_foot(figure, layout, self.wording)

    def _image(self, axes: Axes, n: int) -> None:
        panels.draw_image(axes, self.pictured.shown(self.pictured.images[n]))
        title = panels.fitted(self.wording.images[n], self.layout.cell, panels.NORMAL)
        axes.set_title(title, fontsize=panels.NORMAL, pad=3, **panels.PLAIN)
        if self.before is not None:
            axes.set_xlabel(
                "\n".join(self._decision(self.before[n])), fontsize=panels.SMALL, labelpad=3, **panels.PLAIN
            )

    def _decision(self, probabilities: Tensor) -> list[str]:
        """The two most probable classes, a line each."""
        best = probabilities.topk(min(2, len(probabilities)))
        lines = []
        for lead, c, p in zip(("predicted", "then"), best.indices, best.values, strict=False):
            end = f" {panels.percent(float(p))}%"
            room = self.layout.cell - 0.06 * len(end)
            lines.append(panels.fitted(f"{lead}: {self.wording.name(int(c))}", room, panels.SMALL) + end)
        return lines

    def _column(self, figure: Figure | SubFigure, n: int, k: int) -> AxesImage | None:
        """Draw one column; its heat map, if it has one."""
        layout, heat = self.layout, None
        for p, part in enumerate(layout.parts):
            axes = layout.part_axes(figure, n, k, p)
            if part == "perturbed":
                panels.draw_image(axes, self.pictured.shown(self.pictured.perturbed[n, k]))
            elif part == "heat_map":
                heat = self._heat(axes, n, k)
            elif self.before is not None and self.after is not None:
                own = None if self.own is None else int(self.own[n, k])
                before, after = self.before[n].numpy(), self.after[n, k].numpy()
                panels.draw_probabilities(axes, before, after, own, layout.slots, self.wording.name)
            self._head(axes, n, k, p)
        return heat

    def _heat(self, axes: Axes, n: int, k: int) -> AxesImage:
        limit, clipped = self.scale.limits[n, k], self.scale.clipped[n, k]
        heat = panels.draw_heat(axes, self.pictured.heat[n, k].numpy(), limit, self.cmap)
        if self.layout.bars == "panel":
            panels.draw_bar(self.layout.strip_axes(axes), heat, limit, clipped=clipped, upright=False)
        return heat

    def _head(self, axes: Axes, n: int, k: int, p: int) -> None:
        """The column's title and the part's name: above, or in a lying column one above the other."""
        title = panels.fitted(self.wording.columns[n][k], self.layout.cell, panels.LARGE, bold=True)
        part = self.wording.part(self.layout.parts[p], aside=not self.layout.flat)
        bold: dict[str, Any] = {"fontsize": panels.LARGE, "fontweight": "bold", **panels.PLAIN}
        if self.layout.flat:
            axes.set_title(part, fontsize=panels.NORMAL, pad=3, **panels.PLAIN)
            if p == 0:
                axes.annotate(
                    title,
                    (0.5, 1),
                    (0, 4 + 72 * LINE),
                    xycoords="axes fraction",
                    textcoords="offset points",
                    ha="center",
                    va="bottom",
                    **bold,
                )
            return
        if p == 0:
            axes.set_title(title, pad=3, **bold)
        if k == 0:
            axes.set_ylabel(part, fontsize=panels.NORMAL, labelpad=3, **panels.PLAIN)
