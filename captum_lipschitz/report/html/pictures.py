"""Pictures within the page, each held once however often it is shown."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.report.content import Picture
from captum_lipschitz.report.html.markup import Html, tag

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = slice(12, 16)
_SMALL = 96  # pixels: up to here a picture is shown enlarged, in sharp squares


class Pictures:
    """What the page shows, by content: a picture shown twice is held in one symbol, to which both places refer.

    Args:
        shown: every picture, as often as it will be shown.
    """

    def __init__(self, shown: Iterable[Picture]) -> None:
        self._times = Counter(picture.png for picture in shown)
        self._names: dict[bytes, str] = {}

    def show(self, picture: Picture) -> Html:
        """The picture with its text alternative."""
        width, height = size(picture)
        sharp = "sharp" if max(width, height) <= _SMALL else None
        if self._times[picture.png] < 2:
            return tag(
                "img",
                src=_data(picture),
                alt=picture.text,
                width=width,
                height=height,
                class_=sharp,
                decoding="async",
            )
        name = self._names.setdefault(picture.png, f"picture-{len(self._names) + 1}")
        used = tag("use", href=f"#{name}")
        box = f"0 0 {width} {height}"
        return tag(
            "svg", used, role="img", aria_label=picture.text, width=width, height=height, viewBox=box, class_=sharp
        )

    def symbols(self) -> Html:
        """The pictures that ``show`` referred to so far: once, anywhere in the page."""
        held = []
        for png, name in self._names.items():
            width, height = size(Picture(png=png, text=""))
            image = tag("image", href=_data(Picture(png=png, text="")), width=width, height=height)
            held.append(tag("symbol", image, id=name, viewBox=f"0 0 {width} {height}"))
        return tag("svg", *held, class_="symbols", width=0, height=0, aria_hidden="true") if held else Html()


def size(picture: Picture) -> tuple[int, int]:
    """Width and height in pixels, from the file's header.

    Raises:
        InvalidInputError: the bytes are no PNG.
    """
    png = picture.png
    if not png.startswith(_SIGNATURE) or png[_HEADER] != b"IHDR":
        raise InvalidInputError(f"png: expected the bytes of a PNG file, got {png[:8]!r} for {picture.text!r}")
    width, height = int.from_bytes(png[16:20], "big"), int.from_bytes(png[20:24], "big")
    if not (width and height):
        raise InvalidInputError(f"png: expected a picture with pixels, got {width} x {height} for {picture.text!r}")
    return width, height


def _data(picture: Picture) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.png).decode("ascii")
