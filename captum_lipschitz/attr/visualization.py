"""Figures of attributions: the image plus the perturbation, signed heat maps and the classes' probabilities."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import Colormap
from matplotlib.figure import Figure, SubFigure
from torch import Tensor

from captum_lipschitz._files import write_whole
from captum_lipschitz._typing import Model
from captum_lipschitz.attr._figure.drawing import ColourScale, Drawing
from captum_lipschitz.attr._figure.layout import Layout
from captum_lipschitz.attr._figure.pictured import Array, Attributions, Pictured
from captum_lipschitz.attr._figure.wording import Wording, colour_label, column_titles, listed
from captum_lipschitz.errors import InvalidInputError

PARTS = ("image", "perturbed", "heat_map", "probabilities")
SCALES = ("all", "image", "column", "panel")


class AttributionFigure(Figure):
    """A matplotlib figure that pyplot does not know of, and that a notebook shows all the same."""

    def _repr_png_(self) -> bytes:
        """For notebooks in which matplotlib's inline backend is not active; where it is, its own way comes first."""
        return _rendered(self, "png", self.dpi)


def visualize(
    attributions: Attributions,
    images: Array,
    *,
    show: Sequence[str] | None = None,
    model: Model | None = None,
    probabilities: tuple[Array, Array] | None = None,
    classes: int | Sequence[int] | Tensor | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    titles: Sequence[str] | None = None,
    image_titles: Sequence[str] | None = None,
    top: int | None = None,
    bounds: tuple[float, float] = (0.0, 1.0),
    scale: Literal["all", "image", "column", "panel"] = "all",
    percentile: float = 99.5,
    cmap: str | Colormap = "RdBu_r",
    label: str | None = None,
    figsize: tuple[float, float] | None = None,
    figure: Figure | SubFigure | None = None,
    save: str | Path | None = None,
    dpi: float = 150.0,
) -> Figure | SubFigure:
    """Draw attributions beside their images: one block for each image, one column for each class or method.

    A column shows, from top to bottom, the image plus the perturbation, a signed heat map (the sum over channels, zero
    in the middle of the colours, one colour scale for all columns), and what the model makes of the image before and
    after. A single column lies on its side, so that each image takes one row. pyplot and its settings are left alone.

    Args:
        attributions: shaped as ``images``, or with K columns (one for each class, say): (K, C, H, W) for one image,
            (N, K, C, H, W) for N. Or a mapping from titles to attributions, or a list of them, shaped as ``images``:
            one column each, to set methods beside one another. One channel in place of C will do. Floating tensors of
            any device and precision, or NumPy arrays.
        images: (C, H, W) or (N, C, H, W), floating, within ``bounds``. 1 channel is drawn grey, 3 as RGB; with others
            only ``show=("heat_map",)`` and probabilities can be drawn.
        show: of ``"image"``, ``"perturbed"``, ``"heat_map"`` and ``"probabilities"``, the parts to draw, in order
            (the image always stands on the left). ``None``: all, probabilities where there are some, but of a mapping,
            a list, or one channel to an image's three no ``"perturbed"``: such attributions may not be changes of the
            image. Leave it out too for a tensor that is none, as that of Integrated Gradients.
        model: a function from images to logits (N, M). It is run on the images and on the perturbed images as they are
            drawn (clamped to ``bounds``), in evaluation mode, without gradients, and left as it was.
        probabilities: instead of a model, what is known already: before (N, M), after (N, K, M), in [0, 1].
        classes: the class that each column explains: (K,), or (N, K) where it differs by image, (N,) for one column. It
            heads the column and comes first among the probabilities.
        class_names: by class number; ``"class 3"`` where there are none.
        titles: of the columns, instead of the classes' or the mapping's own.
        image_titles: one for each image, above it.
        top: classes shown in each panel of probabilities: the column's own, then the most probable before or after.
            ``None``: 3, or 5 in a single column.
        bounds: the values drawn darkest and brightest. Where the image plus an attribution lies beyond them, the figure
            says that it was clamped.
        scale: what shares a colour scale: ``"all"`` heat maps, those of one ``"image"`` (row), those of one
            ``"column"`` (methods whose units differ), or each ``"panel"`` for itself.
        percentile: of the absolute values, in (0, 100], where the colour scale ends. Beyond it values take the end's
            colour, and the colour bar has pointed ends.
        cmap: a diverging colour map. Red and blue, the default, are told apart in all common colour blindness.
        label: of the colour bar. ``None``: "darker, brighter" of changes of the image, which those are that ``show``
            adds to it (``"perturbed"``, ``"probabilities"``), "attribution" of others; and what was summed.
        figsize: width and height in inches; ``None`` for what the panels need.
        figure: a figure or subfigure to draw into; ``None`` for a new one.
        save: a file to write; its suffix (``.png``, ``.pdf``, ``.svg``, ...) tells the format. It is written whole or
            not at all.
        dpi: dots per inch of the file.

    Returns:
        The figure. A notebook shows it where it ends a cell; ``figure.savefig`` writes it.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments that do not fit; the message names the argument.
        ModelOutputError: for a model that does not return finite logits.
        OSError: where the file cannot be written.

    Example:
        >>> from captum_lipschitz.attr import AdversarialAttribution
        >>> from captum_lipschitz.attr.visualization import visualize
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 4))
        >>> images, labels = torch.rand(2, 3, 8, 8), torch.tensor([0, 3])
        >>> attributions = AdversarialAttribution(model).attribute(images, target=labels)
        >>> figure = visualize(attributions, images, model=model, classes=labels)
        >>> len(figure.axes)  # two images, each with three panels beside it, and a colour bar
        9

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896: g_explain (the heat map) and g_explain+ (the image plus it).
    """
    pictured = Pictured.of(attributions, images, bounds)
    num_images, num_columns = pictured.heat.shape[:2]
    if model is not None and probabilities is not None:
        raise InvalidInputError("probabilities: expected either these or a model, got both")
    parts = _parts(show, pictured, known=model is not None or probabilities is not None)
    changes = bool({"perturbed", "probabilities"} & set(parts)) and (pictured.changes or show is not None)
    meaning, summed = colour_label(pictured.channels, changes=changes)
    note = pictured.clamped and ("perturbed" in parts or ("probabilities" in parts and model is not None))
    own_bars = scale in ("column", "panel")
    _check_scale(scale, percentile, top)
    path = None if save is None else _writable(save)
    own = None if classes is None else pictured.classes(classes)
    wording = Wording(
        column_titles(pictured.titles if titles is None else titles, own, class_names, num_images, num_columns),
        listed(image_titles, num_images, "image_titles", "image"),
        class_names,
        ", ".join(filter(None, (meaning, summed))) if label is None else label,
        "" if not own_bars else summed if label is None else label,
        f"image + {'perturbation' if changes else 'attribution'}",
        f"clamped to {pictured.range}" if note else "",
    )
    colours = _colours(cmap)
    before, after = _known(pictured, model, probabilities, own)
    layout = Layout(
        num_images,
        num_columns,
        tuple(part for part in parts if part != "image"),
        image="image" in parts,
        aspect=pictured.heat.shape[2] / pictured.heat.shape[3],
        slots=0 if before is None else min(top or (5 if num_columns == 1 else 3), before.shape[1]),
        bars={"all": "figure", "image": "image"}.get(scale, "panel"),
        legend="probabilities" in parts,
        note=note,
    )
    limits = ColourScale.of(pictured.heat, scale, percentile)
    target = AttributionFigure(figsize=figsize or layout.size) if figure is None else figure
    if isinstance(target, AttributionFigure):
        target.set_layout_engine("none")  # whatever matplotlib's settings say: the panels stand where they should
    Drawing(pictured, layout, limits, colours, wording, before, after, own).draw(target)
    if path is not None:
        write_whole(path, _rendered(target, path.suffix[1:].lower(), dpi))
    return target


def _parts(show: Sequence[str] | None, pictured: Pictured, *, known: bool) -> tuple[str, ...]:
    """The parts to draw, checked."""
    parts = tuple(
        part for part in PARTS if (known or part != "probabilities") and (pictured.changes or part != "perturbed")
    )
    if show is not None:
        parts = (show,) if isinstance(show, str) else tuple(show)
    wrong = [part for part in parts if part not in PARTS]
    if wrong or len(set(parts)) < len(parts) or not set(parts) - {"image"}:
        raise InvalidInputError(f"show: expected some of {PARTS[1:]}, each once, and 'image' beside them, got {show!r}")
    if "probabilities" in parts and not known:
        raise InvalidInputError("show: expected a model or probabilities for 'probabilities', got neither")
    channels = pictured.images.shape[1]
    if channels not in (1, 3) and {"image", "perturbed"} & set(parts):
        raise InvalidInputError(
            f"images: expected 1 or 3 channels to draw them, got {channels}; of others show=('heat_map',) can be drawn"
        )
    return parts


def _check_scale(scale: str, percentile: float, top: int | None) -> None:
    if scale not in SCALES:
        raise InvalidInputError(f"scale: expected one of {SCALES}, got {scale!r}")
    if not 0 < percentile <= 100:
        raise InvalidInputError(f"percentile: expected a number in (0, 100], got {percentile}")
    if top is not None and top < 1:
        raise InvalidInputError(f"top: expected at least 1, got {top}")


def _known(
    pictured: Pictured, model: Model | None, given: tuple[Array, Array] | None, own: Tensor | None
) -> tuple[Tensor, Tensor] | tuple[None, None]:
    """Probabilities before (N, M) and after (N, K, M), from the model or as given, where there are any."""
    if model is not None:
        before, after = pictured.probabilities(model)
    elif given is not None:
        before, after = pictured.given_probabilities(given)
    else:
        return None, None
    if own is not None and int(own.max()) >= before.shape[1]:
        raise InvalidInputError(f"classes: expected classes in 0..{before.shape[1] - 1}, got {int(own.max())}")
    return before, after


def _colours(cmap: str | Colormap) -> Colormap:
    if isinstance(cmap, Colormap):
        return cmap
    if cmap not in colormaps:
        raise InvalidInputError(f"cmap: expected a name that matplotlib knows ('RdBu_r', 'PuOr', ...), got {cmap!r}")
    return colormaps[cmap]


def _writable(save: str | Path) -> Path:
    """The path, once it is known that something can be written there."""
    path = Path(save)
    formats = sorted(FigureCanvasAgg.get_supported_filetypes())
    if path.suffix[1:].lower() not in formats:
        raise InvalidInputError(f"save: expected a file name ending in one of {formats}, got {path.name!r}")
    if not path.parent.is_dir():
        raise InvalidInputError(f"save: expected a folder that exists, got {str(path.parent)!r}")
    if path.is_dir():
        raise InvalidInputError(f"save: expected a file, got the folder {str(path)!r}")
    return path


def _rendered(figure: Figure | SubFigure, kind: str, dpi: float) -> bytes:
    """The file's content; of a subfigure, its whole figure's."""
    while isinstance(figure, SubFigure):
        figure = figure.figure
    content = io.BytesIO()
    figure.savefig(content, format=kind, dpi=dpi)
    return content.getvalue()
