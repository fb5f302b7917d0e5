"""The words of a figure of attributions: titles, the classes' names, the colour bar's label."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

ClassNames = Sequence[str] | Mapping[int, str]
_PARTS = {"perturbed": "image + perturbation", "heat_map": "heat map", "probabilities": "probability (%)"}


def colour_label(channels: Sequence[int], *, changes: bool) -> tuple[str, str]:
    """What the colours mean, and what was summed to one value a pixel.

    Of changes of the image it is known that red brightens; of other attributions only their sign.

    Args:
        channels: of each column's attributions.
        changes: whether the attributions are drawn as changes of the image.
    """
    meaning = "darker \N{LEFT RIGHT ARROW} brighter" if changes else "attribution"
    if len(set(channels)) > 1:
        return meaning, "summed over channels"
    return meaning, {1: "", 3: "summed over RGB"}.get(channels[0], f"summed over {channels[0]} channels")


@dataclass(frozen=True)
class Wording:
    """What is written where.

    Attributes:
        columns: a title for each column of each image, N lists of K.
        images: a title for each image, N.
        class_names: by class number.
        label: of the colour bar beside the panels.
        unit: beside the heat maps' name, where each has a bar of its own.
        changed: what the image is with an attribution added to it.
        clamped: what became of values beyond the bounds, where there were any.
    """

    columns: list[list[str]]
    images: list[str]
    class_names: ClassNames | None
    label: str
    unit: str
    changed: str
    clamped: str

    def name(self, number: int) -> str:
        """A class's name, its underscores as spaces; ``class 3`` where it has none."""
        return class_name(self.class_names, number)

    def part(self, part: str, *, aside: bool) -> str:
        """What a row shows, in two lines beside it, or in one above a panel."""
        text = _PARTS[part]
        if part == "heat_map" and self.unit:
            text += f"\n{self.unit}" if aside else f", {self.unit}"
        return text.replace("+ ", "+\n") if aside else text


def class_name(names: ClassNames | None, number: int) -> str:
    """The class's name, or its number where there are no names or none for it."""
    known = names is not None and (number in names if isinstance(names, Mapping) else number < len(names))
    return str(names[number]).replace("_", " ") if names is not None and known else f"class {number}"


def column_titles(
    titles: Sequence[str] | None, own: Tensor | None, names: ClassNames | None, num_images: int, num_columns: int
) -> list[list[str]]:
    """The titles given, or the names of the classes that the columns explain, or nothing: N lists of K."""
    if titles is not None or own is None:
        return [listed(titles, num_columns, "titles", "")] * num_images
    return [[class_name(names, int(c)) for c in row] for row in own]


def listed(texts: Sequence[str] | None, count: int, name: str, default: str) -> list[str]:
    """``count`` texts, or as many defaults."""
    if texts is None:
        return [default] * count
    if isinstance(texts, str):
        raise InvalidTypeError(f"{name}: expected a list of {count} texts, got the single text {texts!r}")
    if len(texts) != count:
        raise InvalidInputError(f"{name}: expected {count} of them, got {len(texts)}")
    return [str(text) for text in texts]
