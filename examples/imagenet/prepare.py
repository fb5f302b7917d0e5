"""Copy a folder of class folders with every image brought to a smaller short side, once, so that training decodes less.

python examples/imagenet/prepare.py imagenet/train small/train --short-side 288

What is there already is left, so the same command goes on after an interruption. Images that are small enough are
copied byte for byte. Files that cannot be decoded are listed at the end, and the exit status is then 1.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image
from torchvision.datasets.folder import IMG_EXTENSIONS
from tqdm import tqdm


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of class folders")
    parser.add_argument("target", type=Path, help="folder to write")
    parser.add_argument("--short-side", type=int, required=True, help="in pixels; a little more than is trained on")
    parser.add_argument("--quality", type=int, default=92, help="of JPEG (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: %(default)s)")
    parsed = parser.parse_args()
    paths = sorted(path for path in parsed.source.rglob("*") if path.suffix.lower() in IMG_EXTENSIONS)
    if not paths:
        sys.stderr.write(f"prepare.py: source: expected images in {parsed.source}, got none\n")
        return 1
    work = partial(
        _prepared, source=parsed.source, target=parsed.target, side=parsed.short_side, quality=parsed.quality
    )
    with ProcessPoolExecutor(parsed.workers) as pool:
        answers = tqdm(pool.map(work, paths, chunksize=16), total=len(paths), unit="image", disable=None)
        failures = [answer for answer in answers if answer is not None]
    for failure in failures:
        sys.stderr.write(f"prepare.py: {failure}\n")
    return 1 if failures else 0


def _prepared(path: Path, *, source: Path, target: Path, side: int, quality: int) -> str | None:
    """Write one image's copy, whole or not at all; what is wrong with it, or ``None``."""
    final = target / path.relative_to(source)
    if final.exists():
        return None
    final.parent.mkdir(parents=True, exist_ok=True)
    unfinished = final.with_name(f".{final.name}.part")
    try:
        with Image.open(path) as image:
            short = min(image.size)
            if short <= side:
                image.load()  # or a file that is cut off would pass
                shutil.copyfile(path, unfinished)
            else:
                width, height = (max(side, round(length * side / short)) for length in image.size)
                small = image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
                small.save(unfinished, format="PNG" if path.suffix.lower() == ".png" else "JPEG", quality=quality)
        unfinished.replace(final)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        unfinished.unlink(missing_ok=True)
        return f"{path} cannot be decoded ({error})"
    return None


if __name__ == "__main__":
    sys.exit(main())
