"""What a finished measurement leaves in its folder: figures, distances, the curve."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from captum_lipschitz._files import write_whole
from captum_lipschitz.measure.files import write_json
from captum_lipschitz.metrics import AraResult

_FIGURES, _DISTANCES, _CURVE = "ara.json", "distances.csv", "curve.png"


def remove_results(folder: Path) -> None:
    """Remove what an earlier run's ``write_results`` left."""
    for name in (_FIGURES, _DISTANCES, _CURVE):
        (folder / name).unlink(missing_ok=True)


def write_results(
    folder: Path,
    result: AraResult,
    about: Mapping[str, Any],
    *,
    name: Callable[[int], str],
    say: Callable[[str], None],
) -> None:
    """Write ``ara.json``, ``distances.csv`` and ``curve.png``.

    Args:
        folder: that exists.
        result: what was measured.
        about: what ``ara.json`` holds besides the result's own figures, as JSON's types.
        name: of an image, by its index.
        say: takes a line where the curve cannot be drawn.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.
    """
    write_json(folder / _FIGURES, {**result.to_dict(), **about})
    write_whole(folder / _DISTANCES, distances_table(result, name).encode())
    try:
        picture = _drawn(result)
    except ImportError as error:
        say(f'curve.png is not drawn: matplotlib cannot be imported ({error}); pip install "captum-lipschitz"')
        return
    write_whole(folder / _CURVE, picture)


def distances_table(result: AraResult, name: Callable[[int], str]) -> str:
    """A line per image: ``index,name,label,distance``; distances read back to the bit, ``inf`` where none was found."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("index", "name", "label", "distance"))
    rows = zip(result.labels.tolist(), result.distances.tolist(), strict=True)
    writer.writerows((i, name(i), label, repr(distance)) for i, (label, distance) in enumerate(rows))
    return text.getvalue()


def _drawn(result: AraResult) -> bytes:
    """The curve as PNG, drawn without a screen and without touching the settings of matplotlib."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), dpi=150, layout="constrained")
    result.plot(figure.subplots())
    content = io.BytesIO()
    figure.savefig(content, format="png")
    return content.getvalue()
