"""Copy a folder of class folders with every image brought to a smaller short side, once, so that training decodes less.

python examples/imagenet/prepare.py imagenet/train small/train --short-side 288

What is there already is left, so the same command goes on after an interruption or a full disk. Images that are small
enough are copied byte for byte. Files that cannot be decoded are listed at the end, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from io import BytesIO
from pathlib import Path

from imagenet_training.numbers import at_least_one
from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm

from captum_lipschitz._reading import one_line
from captum_lipschitz.measure.images import opened_image


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of class folders")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--short-side", type=int, required=True, help="in pixels; a little more than is trained on")
    parser.add_argument("--quality", type=int, default=92, help="of JPEG (default: %(default)s)")
    parser.add_argument("--workers", type=at_least_one, default=os.cpu_count(), help="processes (default: %(default)s)")
    parsed = parser.parse_args()
    paths = sorted(path for path in parsed.source.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        sys.stderr.write(f"prepare.py: source: expected images in {parsed.source}, got none\n")
        return 1
    work = partial(
        _prepared, source=parsed.source, target=parsed.target, side=parsed.short_side, quality=parsed.quality
    )
    try:
        with ProcessPoolExecutor(parsed.workers) as pool:
            answers = tqdm(pool.map(work, paths, chunksize=16), total=len(paths), unit="image", disable=None)
            failures = [answer for answer in answers if answer is not None]
    except OSError as error:
        sys.stderr.write(
            f"prepare.py: target: {parsed.target} cannot be written ({error}); the images there are whole, and the "
            "same command goes on from them\n"
        )
        return 1
    for failure in failures:
        sys.stderr.write(f"prepare.py: {failure}\n")
    return 1 if failures else 0


def _prepared(path: Path, *, source: Path, target: Path, side: int, quality: int) -> str | None:
    """Write one image's copy, whole or not at all; what is wrong with the image, or ``None``.

    Raises:
        OSError: the copy cannot be written.
    """
    final = target / path.relative_to(source)
    if final.exists():
        return None
    try:
        content = _smaller(path, side, quality)
    except Exception as error:  # noqa: BLE001 - Pillow raises whatever a damaged file makes of it
        return one_line(f"{path} cannot be decoded ({error})")
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{final.name}.part")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(final)
    except OSError:
        unfinished.unlink(missing_ok=True)
        raise
    return None


def _smaller(path: Path, side: int, quality: int) -> bytes:
    """The file to write: of the same kind for PNG, else JPEG."""
    with opened_image(path) as image:
        short = min(image.size)
        if short <= side:
            image.load()  # or a file that is cut off would pass
            return path.read_bytes()
        width, height = (max(side, round(length * side / short)) for length in image.size)
        small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
    written = BytesIO()
    small.save(written, format="PNG" if path.suffix.lower() == ".png" else "JPEG", quality=quality)
    return written.getvalue()


if __name__ == "__main__":
    sys.exit(main())
