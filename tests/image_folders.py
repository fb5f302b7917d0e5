"""Small folders of class folders of images, and where the scripts of examples/imagenet lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

IMAGENET = Path(__file__).parents[1] / "examples" / "imagenet"
CLASSES = ("ant", "bee", "cat")


def write_images(folder: Path, *, each: int, side: int = 40) -> None:
    """JPEGs of blocks whose colours follow from class and number, so that there is something to learn."""
    for number, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            source = np.random.default_rng([number, i])
            blocks = source.integers(0, 255, (5, 6, 3), dtype=np.uint8)
            blocks[..., number] //= 4
            Image.fromarray(blocks).resize((side + 8, side), Image.Resampling.NEAREST).save(folder / name / f"{i}.jpg")
