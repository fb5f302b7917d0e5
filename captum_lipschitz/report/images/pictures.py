"""Pictures of an audit: images, maps over them, changes of them, and bars for inputs that are no images."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz.geometry import Bounds
from captum_lipschitz.metrics.maps import position_maps
from captum_lipschitz.report.content import Picture
from captum_lipschitz.report.images.png import Pixels, png

SIDE = 128  # pixels of a picture's longer side, at most
BAR_COLOURS = {"positive": (178, 24, 43), "negative": (33, 102, 172), "value": (90, 90, 90)}

_PERCENTILE = 99.0  # of a map's sizes, where its colours end
_STEPS = 10  # of colour on either side of zero: with 12 greys beneath they fit a palette
_GREYS = 12
_DARKEST = 0.5  # what black becomes beneath a map, so that colours can be told on it
_TALLEST, _WIDEST = 64, 192  # of bars
_NAMED = 3  # features named in a text


class Look(NamedTuple):
    """How the inputs of an audit are shown.

    Attributes:
        low: the value shown darkest.
        high: the value shown brightest.
        side: pixels of a picture's longer side, at most; larger ones are averaged down.
    """

    low: float = 0.0
    high: float = 1.0
    side: int = SIDE

    @classmethod
    def of(cls, image: Tensor, bounds: Bounds | tuple[float, float] | None = None, side: int = SIDE) -> Look:
        """The bounds; without, [0, 1], or an image's own range where it lies beyond."""
        box = Bounds.of(bounds)
        if box is not None:
            low, high = (float(limit.amin() if i == 0 else limit.amax()) if isinstance(limit, Tensor) else limit
                         for i, limit in enumerate(box))  # fmt: skip
            return cls(low, high, side)
        low, high = float(image.min()), float(image.max())
        return cls(side=side) if low >= 0 and high <= 1 else cls(low, max(high, low + 1e-6), side)


def is_picture(image: Tensor) -> bool:
    """Whether an input (C, ...) has the two or three axes of positions that a picture can show."""
    return image.dim() in (3, 4)


def image_picture(image: Tensor, text: str, look: Look, *, rho: float | None = None) -> Picture:
    """The image itself, its values clamped to what can be shown; of a row or a sequence, bars.

    Args:
        image: (C, H, W), (C, D, H, W) of which the middle slice is shown, (C, L) or (F,).
        text: what it is.
        look: how it is shown.
        rho: see ``Picture``.

    Example:
        >>> image_picture(torch.rand(3, 8, 8), "image 0", Look()).text
        'image 0'
    """
    if not is_picture(image):
        return bars_picture(_row(image), text, rho=rho, signed=False)
    shown = ((_slice(image) - look.low) / (look.high - look.low)).clamp(0, 1)
    grey = shown.shape[0] != 3
    pixels = _smaller(shown.mean(0, keepdim=True) if grey else shown, look.side)
    return Picture(png=png(_bytes(pixels)), text=f"{text}{_of_slice(image)}", rho=rho)


def map_picture(
    attributions: Tensor, image: Tensor, text: str, look: Look, *, beneath: bool = True, signed: bool = True
) -> Picture:
    """Attributions as colours over the image: red for, blue against, the scale symmetric about zero.

    Args:
        attributions: (1, ...) as a method of an audit gives them; channels are summed.
        image: (1, ...), the input explained.
        text: what it is, to which the meaning of colours and where the map is strongest are added.
        look: how the image is shown.
        beneath: show the image beneath, in grey; else the map alone.
        signed: whether negative values have a meaning to tell.

    Example:
        >>> map_picture(torch.ones(1, 1, 2, 2), torch.rand(1, 3, 8, 8), "Grad-CAM for cat", Look(), signed=False).text
        'Grad-CAM for cat; red speaks for it; the same everywhere'
    """
    values = position_maps(attributions, image, magnitude=False)[0].detach().double().cpu()
    meaning = "red speaks for it, blue against" if signed else "red speaks for it"
    if not is_picture(image[0]):
        return bars_picture(values.flatten(), text, meaning=meaning)
    flat = _smaller(_slice(values[None]), look.side)[0]
    pixels = _coloured(flat, _beneath(image[0], look) if beneath else None)
    where = _strongest(flat)
    return Picture(png=png(pixels), text=f"{text}{_of_slice(image[0])}; {meaning}; {where}")


def change_picture(change: Tensor, image: Tensor, text: str, look: Look, *, rho: float, added: bool = True) -> Picture:
    """A change of an image at its true strength: added to the image, or alone on grey.

    Args:
        change: (C, ...), of the image's shape.
        image: (C, ...).
        text: what it is.
        look: how the image is shown.
        rho: its size.
        added: show the image with the change; else the change alone, 0 as the middle grey.

    Example:
        >>> image_and_change = torch.rand(3, 8, 8), torch.rand(3, 8, 8) / 10
        >>> change_picture(image_and_change[1], image_and_change[0], "toward cat", Look(), rho=0.1).rho
        0.1
    """
    if not is_picture(image):
        return bars_picture(_row(change), text, rho=rho)
    middle = torch.full_like(image, (look.low + look.high) / 2)
    return image_picture((image if added else middle) + change, text, look, rho=rho)


def bars_picture(
    values: Tensor,
    text: str,
    *,
    rho: float | None = None,
    signed: bool = True,
    meaning: str = "",
) -> Picture:
    """Bars for the values of a row, upward where positive, the largest as high as the picture allows.

    Where there are more values than the picture has room for, neighbours share a bar, the largest of them.

    Args:
        values: (F,).
        text: what they are, to which the largest are added.
        rho: see ``Picture``.
        signed: red and blue by sign, else grey.
        meaning: of the colours.
    """
    values = values.detach().double().cpu()
    known = torch.where(values.isfinite(), values, 0)
    order = known.abs().argsort(descending=True, stable=True)[:_NAMED].tolist()
    largest = ", ".join(f"feature {i} {float(values[i]):+.3g}" for i in order)
    heights = _pooled(known, _WIDEST // 2)
    width = max(2, min(8, _WIDEST // len(heights)))
    half = _TALLEST // 2
    top = float(heights.abs().max()) or 1.0
    pixels: Pixels = np.full((_TALLEST, width * len(heights), 3), 255, dtype=np.uint8)
    for i, value in enumerate((heights / top).tolist()):
        size = round(abs(value) * (half - 1))
        rows = slice(half - size, half) if value > 0 else slice(half + 1, half + 1 + size)
        kind = "value" if not signed else "positive" if value > 0 else "negative"
        pixels[rows, i * width : (i + 1) * width - 1] = BAR_COLOURS[kind]
    pixels[half] = 160
    return Picture(png=png(pixels), text="; ".join(filter(None, (text, meaning, f"largest: {largest}"))), rho=rho)


def _pooled(values: Tensor, most: int) -> Tensor:
    size = -(-len(values) // most)
    padded = F.pad(values, (0, -len(values) % size)).reshape(-1, size)
    return padded.gather(1, padded.abs().argmax(1, keepdim=True))[:, 0]


def _row(image: Tensor) -> Tensor:
    """One value for each position of a row (F,) or a sequence (C, L)."""
    return image if image.dim() == 1 else image.mean(0)


def _slice(image: Tensor) -> Tensor:
    """(C, H, W): the image, or the middle slice of a volume."""
    return image if image.dim() == 3 else image[:, image.shape[1] // 2]


def _of_slice(image: Tensor) -> str:
    return "" if image.dim() == 3 else f", slice {image.shape[1] // 2 + 1} of {image.shape[1]}"


def _smaller(image: Tensor, side: int) -> Tensor:
    """(C, H, W) in double precision on the CPU, averaged down to at most ``side`` pixels."""
    image = image.detach().double().cpu()
    longest = max(image.shape[1:])
    if longest <= side:
        return image
    sizes = [max(1, round(size * side / longest)) for size in image.shape[1:]]
    return F.interpolate(image[None], sizes, mode="area")[0]


def _bytes(pixels: Tensor) -> Pixels:
    """(C, H, W) in [0, 1] as (H, W), or (H, W, 3)."""
    levels: Pixels = (pixels.nan_to_num(0) * 255).round().byte().movedim(0, -1).numpy()
    return levels[..., 0] if levels.shape[-1] == 1 else levels


def _beneath(image: Tensor, look: Look) -> Tensor:
    """The image in a few greys, (H, W) in [0, 1]."""
    grey = ((_slice(image).mean(0, keepdim=True) - look.low) / (look.high - look.low)).clamp(0, 1)
    return (_smaller(grey, look.side)[0] * (_GREYS - 1)).round() / (_GREYS - 1)


def _coloured(values: Tensor, grey: Tensor | None) -> Pixels:
    """A map (H, W) as colours, darkened where the image beneath is dark."""
    sizes = values[values.isfinite()].abs()
    limit = float(sizes.quantile(_PERCENTILE / 100)) if len(sizes) else 0.0
    limit = limit or (float(sizes.max()) if len(sizes) else 0.0) or 1.0
    level = (values.nan_to_num(0).clamp(-limit, limit) / limit * _STEPS).round() / _STEPS
    ends = torch.tensor([BAR_COLOURS["negative"], BAR_COLOURS["positive"]], dtype=torch.float64)
    colour = ends[(level > 0).long()]
    mixed = 255 + level.abs()[..., None] * (colour - 255)
    if grey is not None:
        mixed = mixed * (_DARKEST + (1 - _DARKEST) * grey[..., None])
    pixels: Pixels = mixed.round().byte().numpy()
    return pixels


def _strongest(values: Tensor) -> str:
    """Where a map (H, W) is strongest, in words: the ninth of the picture with the largest mean size."""
    sizes = values.nan_to_num(0).abs()
    if float(sizes.max()) == float(sizes.min()):
        return "the same everywhere"
    parts = F.adaptive_avg_pool2d(sizes[None], (3, 3))[0]
    row, column = divmod(int(parts.argmax()), 3)
    vertical, horizontal = ("at the top", "in the middle", "at the bottom")[row], ("left", "", "right")[column]
    return f"strongest {vertical} {horizontal}".rstrip()
