"""Where the panels of a figure of attributions stand; lengths are inches until axes are placed."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure, SubFigure

GAP, LABEL, TITLE, LINE, MARGIN, STRIP = 0.08, 0.48, 0.22, 0.14, 0.06, 0.32


@dataclass(frozen=True)
class Layout:
    """A block for each image: the image on the left, beside it the columns, with one row for each part.

    A single column lies on its side: its parts stand beside one another, so that each image takes one row.

    Attributes:
        parts: what each column shows, in order.
        image: whether the image itself is shown.
        aspect: height over width of an image.
        slots: classes in a panel of probabilities.
        bars: ``"figure"`` or ``"image"`` for one colour bar beside it, ``"panel"`` for one under each heat map.
        legend: whether the bars of probabilities are explained at the foot.
        note: whether clamping is mentioned there.
    """

    num_images: int
    num_columns: int
    parts: tuple[str, ...]
    image: bool
    aspect: float
    slots: int
    bars: str
    legend: bool
    note: bool

    @property
    def flat(self) -> bool:
        """Whether the parts stand beside one another."""
        return self.num_columns == 1

    @property
    def cell(self) -> float:
        """Width of an image."""
        return 2.0 if self.num_columns <= 2 else 1.6 if self.num_columns <= 5 else 1.25

    def _height(self, part: str) -> float:
        if part == "probabilities":
            return 0.34 * self.slots + 0.05
        return self.cell * self.aspect + (STRIP if part == "heat_map" and self.bars == "panel" else 0.0)

    @property
    def _heights(self) -> list[float]:
        """Of the rows of a block."""
        if self.flat:
            return [max(self._height(part) for part in self.parts)]
        return [self._height(part) for part in self.parts]

    @property
    def _title(self) -> float:
        """Height above a block."""
        return TITLE + (LINE if self.flat else 0.0)

    @property
    def block(self) -> float:
        """Height of a block, with what stands above and below it."""
        rows = sum(self._heights) + GAP * (len(self._heights) - 1)
        caption = 2.6 * LINE if self.image and self.slots else 0.0
        return self._title + max(rows, (self.cell * self.aspect if self.image else 0.0) + caption) + 2 * GAP

    @property
    def left(self) -> float:
        """Where the columns begin."""
        return GAP + (self.cell + GAP if self.image else 0.0) + (0.0 if self.flat else LABEL - GAP)

    @property
    def width(self) -> float:
        """Width of the figure."""
        columns = len(self.parts) if self.flat else self.num_columns
        side = 0.95 if self.bars != "panel" and "heat_map" in self.parts else 0.1
        return self.left + columns * (self.cell + GAP) + side

    @property
    def wide(self) -> bool:
        """Whether the foot's words fit into one line."""
        return self.width > (5.1 if self.note else 3.6)

    @property
    def foot(self) -> float:
        """Height of what stands below all blocks."""
        lines = 1 if self.wide or not self.legend else 2 + self.note
        return 0.15 + 0.15 * lines if self.legend or self.note else 0.0

    @property
    def size(self) -> tuple[float, float]:
        """Width and height of the figure."""
        return self.width, self.num_images * self.block + self.foot + 2 * MARGIN

    def place(self, figure: Figure | SubFigure, left: float, top: float, width: float, height: float) -> Axes:
        """Axes whose upper left corner stands so many inches from the figure's."""
        whole, high = self.size
        return figure.add_axes((left / whole, 1 - (top + height) / high, width / whole, height / high))

    def top(self, n: int) -> float:
        """Upper edge of image n's pictures."""
        return n * self.block + self._title + MARGIN

    def image_axes(self, figure: Figure | SubFigure, n: int) -> Axes:
        """For image n itself."""
        return self.place(figure, GAP, self.top(n), self.cell, self.cell * self.aspect)

    def part_axes(self, figure: Figure | SubFigure, n: int, k: int, p: int) -> Axes:
        """For part p of image n's column k."""
        part = self.parts[p]
        height = self.cell * self.aspect if part != "probabilities" else self._height(part)
        down, across = (0.0, p) if self.flat else (sum(self._heights[:p]) + GAP * p, k)
        return self.place(figure, self.left + across * (self.cell + GAP), self.top(n) + down, self.cell, height)

    def strip_axes(self, heat: Axes) -> Axes:
        """For the colour bar under one heat map."""
        height = self.cell * self.aspect
        return heat.inset_axes((0.0, -0.15 / height, 1.0, 0.09 / height))

    def bar_axes(self, figure: Figure | SubFigure, n: int | None) -> Axes:
        """For the colour bar of image n, or of all images, at the right edge."""
        first, last = (0, self.num_images - 1) if n is None else (n, n)
        begin, end = self.top(first), self.top(last) + self.block - self._title - 2 * GAP
        height = min(3.0, 0.84 * (end - begin))
        return self.place(figure, self.size[0] - 0.87, (begin + end - height) / 2, 0.12, height)
