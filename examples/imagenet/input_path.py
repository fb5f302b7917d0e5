"""How many images per second the input path brings, apart from any network, and what bounds it.

python examples/imagenet/input_path.py imagenet/train --config examples/imagenet/configs/resnet50_robust.yaml \
    --workers 16 --needed 1200

Each stage is run alone by one process: reading the bytes, decoding, decoding and augmenting. Then the loader as
train.py uses it, with so many workers. The first line reads the files as the disk is now, cold or not; after it they
are in the system's cache.
"""

from __future__ import annotations

import argparse
import io
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from imagenet_training.pictures import Draw, Pictures, loaded
from imagenet_training.recipe import read_recipe
from PIL import Image
from torchvision.datasets import ImageFolder

from captum_lipschitz.errors import CaptumLipschitzError


def main() -> int:
    """The exit status."""
    parsed = _parsed()
    torch.set_num_threads(1)
    try:
        recipe = read_recipe(parsed.config, parsed.set)
        pictures = Pictures(parsed.folder, recipe, train=True)
    except CaptumLipschitzError as error:
        sys.stderr.write(f"input_path.py: {error}\n")
        return 1
    files = [path for path, _ in ImageFolder(str(parsed.folder)).samples]
    chosen = [i * len(files) // min(parsed.images, len(files)) for i in range(min(parsed.images, len(files)))]
    paths = [Path(files[i]) for i in chosen]
    _say("reading, as the disk is now", len(paths) / _seconds(lambda: [path.read_bytes() for path in paths]))
    contents = [path.read_bytes() for path in paths]
    size = statistics.fmean(map(len, contents))
    print(f"{len(paths)} files of {size / 1024:.0f} KiB in the mean, {recipe.resolution} pixels")
    stages: dict[str, Callable[[], Any]] = {
        "reading, from the cache": lambda: [path.read_bytes() for path in paths],
        "decoding": lambda: [Image.open(io.BytesIO(content)).convert("RGB") for content in contents],
        "reading, decoding, augmenting": lambda: [pictures[Draw(i, 0)] for i in chosen],
    }
    for name, stage in stages.items():
        rates = [len(paths) / _seconds(stage) for _ in range(parsed.rounds)]
        _say(f"{name}, one process", statistics.median(rates))
    rate = _loader(pictures, parsed)
    _say(f"the loader, {parsed.workers} workers", rate)
    print(f"bytes read: {rate * size / 2**20:.1f} MiB/s")
    if parsed.needed is not None:
        verdict = "keeps up" if rate >= parsed.needed else "is the bound: prepare.py, or more cores for each GPU"
        print(f"{rate / parsed.needed:.2f} times the {parsed.needed:g} images/s that are needed: it {verdict}")
    return 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of class folders")
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="entries of the recipe to change")
    parser.add_argument("--images", type=int, default=256, help="that the stages are run on (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=8, help="of the loader (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the loader (default: %(default)s)")
    parser.add_argument("--needed", type=float, help="images per second that the network takes")
    return parser.parse_args()


def _loader(pictures: Pictures, parsed: argparse.Namespace) -> float:
    """Images per second once the workers have started and their queues are full."""
    count, size = len(pictures), 64
    batches = [[Draw((i * size + j) % count, i) for j in range(size)] for i in range(100_000)]
    loader = iter(loaded(pictures, batches, workers=parsed.workers, pin=False))
    for _ in range(5 * max(1, parsed.workers)):  # what is prepared ahead is not the rate at which it is made
        next(loader)
    began, seen = time.monotonic(), 0
    while time.monotonic() - began < parsed.seconds:
        seen += len(next(loader)[0])
    return seen / (time.monotonic() - began)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _say(name: str, rate: float) -> None:
    print(f"{name:<48} {rate:9.1f} images/s")


if __name__ == "__main__":
    sys.exit(main())
