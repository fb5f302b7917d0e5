"""How many images per second the input path brings, apart from any network, and what bounds it.

python examples/imagenet/input_path.py imagenet/train --config examples/imagenet/configs/resnet50_robust.yaml \
    --workers 16 --needed 1200

Each stage is run alone by one process: reading the bytes, decoding, decoding and augmenting. Then the loader as
train.py uses it, with so many workers. The first line reads the files as the disk is now, cold or not; after it they
are in the system's cache. The second column counts seconds in which a core worked, whatever else the machine did: so
many images are what each core brings, and the images per second that are needed, divided by it, the cores to have.
"""

from __future__ import annotations

import argparse
import importlib
import io
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from imagenet_training.numbers import at_least_zero
from imagenet_training.pictures import Draw, Pictures, decoded, loaded, random_crop
from imagenet_training.recipe import Recipe, read_recipe
from PIL import Image
from torch import Tensor
from torch.utils.data import Sampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomResizedCrop, v2

from captum_lipschitz.errors import CaptumLipschitzError

_BATCH = 64


class Rate(NamedTuple):
    """Images per second of the clock, and per second of a core's work."""

    wall: float
    cpu: float


class Until(Sampler[list[Draw]]):
    """Batches of the images in turn, until a time is over, and at least one."""

    def __init__(self, count: int, seconds: float) -> None:
        self._count, self._seconds = count, seconds

    def __iter__(self) -> Iterator[list[Draw]]:
        end, first = time.monotonic() + self._seconds, 0
        while not first or time.monotonic() < end:
            yield [Draw(i % self._count, i // self._count) for i in range(first, first + _BATCH)]
            first += _BATCH


def main() -> int:
    """The exit status."""
    parsed = _parsed()
    torch.set_num_threads(1)
    try:
        recipe = read_recipe(parsed.config, parsed.set)
        pictures = Pictures(parsed.folder, recipe, train=True)
        _measure(pictures, recipe, parsed)
    except CaptumLipschitzError as error:
        sys.stderr.write(f"input_path.py: {error}\n")
        return 1
    return 0


def _measure(pictures: Pictures, recipe: Recipe, parsed: argparse.Namespace) -> None:
    files = [path for path, _ in ImageFolder(str(parsed.folder)).samples]
    chosen = [i * len(files) // min(parsed.images, len(files)) for i in range(min(parsed.images, len(files)))]
    paths = [files[i] for i in chosen]
    print(f"{'images per second':<48} {'wall':>9} {'one core':>9}")
    contents: list[bytes] = []
    _say("reading, as the disk is now", rated(lambda i: contents.append(Path(paths[i]).read_bytes()), len(paths)))
    size = statistics.fmean(map(len, contents))
    print(f"{len(paths)} files of {size / 1024:.0f} KiB in the mean, {recipe.resolution} pixels")
    stages: dict[str, Callable[[int], Any]] = {
        "reading, from the cache": lambda i: Path(paths[i]).read_bytes(),
        "decoding": lambda i: decoded(paths[i]),
        "decoding, augmenting": lambda i: pictures[Draw(chosen[i], 0)],
    }
    if parsed.compare:
        warnings.simplefilter("ignore", DeprecationWarning)
        stages |= _others(contents, recipe)
    rounds: dict[str, list[Rate]] = {name: [] for name in stages}
    for _ in range(parsed.rounds):  # in turns, so that what else the machine does falls on all of them
        for name, stage in stages.items():
            rounds[name].append(rated(stage, len(paths)))
    base = rounds["decoding, augmenting"]
    for name, rates in rounds.items():
        note = ""
        if parsed.compare:
            ratio = statistics.median(rate.cpu / own.cpu for rate, own in zip(rates, base, strict=True))
            note = f"  {ratio:5.2f} times decoding, augmenting"
        _say(name, Rate(*(statistics.median(column) for column in zip(*rates, strict=True))), note)
    rate = _loader(pictures, parsed)
    _say(f"the loader, {parsed.workers} workers", rate)
    print(f"bytes read: {rate.wall * size / 2**20:.1f} MiB/s")
    if parsed.needed is not None:
        verdict = "keeps up" if rate.wall >= parsed.needed else "is the bound: prepare.py, or more cores for each GPU"
        print(f"{rate.wall / parsed.needed:.2f} times the {parsed.needed:g} images/s that are needed: it {verdict}")
        print(f"these are the work of {parsed.needed / rate.cpu:.1f} cores (worked out)")


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder of class folders")
    parser.add_argument("--config", type=Path, required=True, help="recipe")
    parser.add_argument("--set", nargs="+", default=[], metavar="NAME=VALUE", help="entries of the recipe to change")
    parser.add_argument("--images", type=int, default=256, help="that the stages are run on (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="medians of so many (default: %(default)s)")
    parser.add_argument("--workers", type=at_least_zero, default=8, help="of the loader (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of the loader (default: %(default)s)")
    parser.add_argument("--needed", type=float, help="images per second that the network takes")
    parser.add_argument("--compare", action="store_true", help="with other ways to decode and augment, JPEG alone")
    return parser.parse_args()


def _others(contents: list[bytes], recipe: Recipe) -> dict[str, Callable[[int], Any]]:
    """Ways that were not taken, each from the bytes of an RGB JPEG to the pixels that are trained on."""
    side = [recipe.resolution, recipe.resolution]
    crop, flip = v2.RandomResizedCrop(side, scale=recipe.crop_scale, antialias=True), v2.RandomHorizontalFlip()
    in_pillow = v2.Compose([crop, flip, v2.PILToTensor()])
    in_tensors = v2.Compose([crop, flip])

    def opened(i: int) -> Image.Image:
        torch.default_generator.manual_seed(i)
        return Image.open(io.BytesIO(contents[i]), formats=("JPEG",))

    def boxed(i: int, gap: float | None, *, draft: bool) -> Tensor:
        image = opened(i)
        top, left, height, width = RandomResizedCrop.get_params(image, list(recipe.crop_scale), [3 / 4, 4 / 3])
        full, fraction = image.width, min(height, width) // recipe.resolution
        if draft and fraction > 1:  # JPEG's own halves, quarters and eighths, cheaper to decode
            image.draft("RGB", (image.width // fraction, image.height // fraction))
        scale = image.width / full
        box = (left * scale, top * scale, (left + width) * scale, (top + height) * scale)
        shown: Tensor = v2.functional.pil_to_tensor(flip(image.resize(side, Image.Resampling.BILINEAR, box, gap)))
        return shown

    others: dict[str, Callable[[int], Any]] = {
        "Pillow, torchvision on Pillow's images": lambda i: in_pillow(opened(i)),
        "Pillow, its resize of a box": lambda i: boxed(i, None, draft=False),
        "Pillow, its resize of a box, reducing_gap": lambda i: boxed(i, 2.0, draft=False),
        "Pillow, its resize of a box, draft": lambda i: boxed(i, None, draft=True),
        "Pillow, torchvision on tensors": lambda i: in_tensors(v2.functional.pil_to_tensor(opened(i))),
    }
    for name, decoder in _decoders().items():

        def pixels(i: int, decode: Callable[[Tensor], Tensor] = decoder) -> Tensor:
            torch.default_generator.manual_seed(i)
            return decode(torch.frombuffer(bytearray(contents[i]), dtype=torch.uint8))

        others[f"{name}, decoding alone"] = pixels

        def theirs(i: int, pixels: Callable[[int], Tensor] = pixels) -> Any:
            return in_tensors(pixels(i))

        def ours(i: int, pixels: Callable[[int], Tensor] = pixels) -> Any:
            return random_crop(pixels(i), recipe)

        others[f"{name}, torchvision on tensors"], others[f"{name}, our augmenting"] = theirs, ours
    return others


def _decoders() -> dict[str, Callable[[Tensor], Tensor]]:
    """Of those that are installed; torchvision's is deprecated since 0.29 in favour of torchcodec's."""
    found: dict[str, Callable[[Tensor], Tensor]] = {}
    for name, module in (("torchvision", "torchvision.io"), ("torchcodec", "torchcodec.decoders")):
        try:
            found[name] = importlib.import_module(module).decode_jpeg
        except (ImportError, AttributeError, OSError, RuntimeError) as error:  # noqa: PERF203 - two of them
            print(f"without {name}'s decoder ({str(error).splitlines()[0]})")
    return found


def _loader(pictures: Pictures, parsed: argparse.Namespace) -> Rate:
    """Images per second once the workers have started and their queues are full."""
    work, began = _worked(), time.monotonic()
    loader = loaded(pictures, Until(len(pictures), parsed.seconds), workers=parsed.workers, pin=False)
    arrivals = [time.monotonic() for _ in loader]
    skipped = min(5 * max(1, parsed.workers), len(arrivals) // 2)  # prepared ahead: not the rate at which it is made
    since = arrivals[skipped - 1] if skipped else began
    wall = (len(arrivals) - skipped) * _BATCH / (arrivals[-1] - since)
    return Rate(wall, len(arrivals) * _BATCH / (_worked() - work))


def _worked() -> float:
    """Seconds of a core that this process and its ended children took."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def rated(work: Callable[[int], Any], count: int) -> Rate:
    """How often per second ``work`` ran, called with 0 to ``count`` - 1."""
    wall, cpu = time.perf_counter(), time.process_time()
    for i in range(count):
        work(i)
    return Rate(count / (time.perf_counter() - wall), count / max(1e-9, time.process_time() - cpu))


def _say(name: str, rate: Rate, note: str = "") -> None:
    print(f"{name:<48} {rate.wall:9.1f} {rate.cpu:9.1f}{note}")


if __name__ == "__main__":
    sys.exit(main())
