"""Training and validation images: which are drawn at which step, and how each is decoded and augmented.

Everything random is a function of the seed, the epoch and the image alone. So the number of loader workers, of
processes and of interruptions changes no pixel, and nothing of it has to be kept in a checkpoint.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.datasets import ImageFolder
from torchvision.transforms import RandomHorizontalFlip, RandomResizedCrop
from torchvision.transforms.functional import center_crop, pil_to_tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.images import LARGEST, as_rgb, opened_image
from imagenet_training.recipe import Recipe

_NOISE = 64  # different images, as BatchNorm takes no batch of equal ones
_MIRROR = RandomHorizontalFlip()


class Draw(NamedTuple):
    """One image of one epoch; ``counted`` is false for those that only fill a share up."""

    number: int
    epoch: int
    counted: bool = True


class Pictures(Dataset[tuple[Tensor, int, bool]]):
    """Images of a folder of class folders, uint8 of shape (3, side, side), with their class.

    Args:
        folder: of class folders.
        recipe: resolution, crops, seed.
        train: random crops and flips; otherwise the centre.

    Attributes:
        classes: names of the class folders, in their order.
        digest: of the files' names: a run draws images by their number among these.

    Raises:
        InvalidInputError: there is no image, or a class folder without one.
    """

    def __init__(self, folder: Path, recipe: Recipe, *, train: bool) -> None:
        try:
            listed = ImageFolder(str(folder))
        except FileNotFoundError as error:
            raise InvalidInputError(f"data: expected class folders of images in {folder} ({error})") from error
        self.classes: list[str] = listed.classes
        self._files: list[tuple[str, int]] = listed.samples
        self.digest = _digest(Path(path).relative_to(folder).as_posix() for path, _ in self._files)
        self._seed = recipe.seed
        self._shown: Callable[[Tensor], Tensor] = partial(random_crop if train else _centre, recipe=recipe)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, bool]:
        path, label = self._files[draw.number]
        pixels = decoded(path)
        before = torch.get_rng_state()
        try:  # not by torch.manual_seed, which also prepares GPUs, and takes as long as the decoding
            torch.default_generator.manual_seed(mixed(self._seed, "image", draw.epoch, draw.number))
            return self._shown(pixels), label, draw.counted
        finally:
            torch.set_rng_state(before)


class SyntheticPictures(Dataset[tuple[Tensor, int, bool]]):
    """Some images of noise, over and over: what the network alone costs."""

    def __init__(self, count: int, classes: int, side: int) -> None:
        self.classes = [f"class{i}" for i in range(classes)]
        self.digest = _digest(self.classes)
        self._count = count
        source = torch.Generator().manual_seed(0)
        self._images = torch.randint(0, 256, (_NOISE, 3, side, side), dtype=torch.uint8, generator=source)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int, bool]:
        return self._images[draw.number % _NOISE], draw.number % len(self.classes), draw.counted


class TrainingOrder(Sampler[list[Draw]]):
    """This process's share of every batch from one step to the last; the whole batch is that of any number of them.

    Args:
        count: images.
        recipe: batch size, epochs, seed.
        start: steps that were taken already.
        rank: of this process.
        processes: how many share each batch.

    Raises:
        InvalidInputError: an epoch would have no batch, or a batch cannot be shared evenly.
    """

    def __init__(self, count: int, recipe: Recipe, *, start: int, rank: int, processes: int) -> None:
        if recipe.batch_size % processes:
            raise InvalidInputError(
                f"batch_size: expected a multiple of the {processes} processes, got {recipe.batch_size}"
            )
        self.steps_per_epoch = count // recipe.batch_size
        if self.steps_per_epoch == 0:
            raise InvalidInputError(
                f"batch_size: expected at most the {count} training images, got {recipe.batch_size}"
            )
        self.steps = self.steps_per_epoch * recipe.epochs
        self._count, self._recipe, self._start = count, recipe, start
        share = recipe.batch_size // processes
        self._mine = slice(rank * share, (rank + 1) * share)

    def __len__(self) -> int:
        return max(0, self.steps - self._start)

    def __iter__(self) -> Iterator[list[Draw]]:
        size = self._recipe.batch_size
        epoch, order = -1, torch.empty(0)
        for step in range(self._start, self.steps):
            if step // self.steps_per_epoch != epoch:
                epoch = step // self.steps_per_epoch
                source = torch.Generator().manual_seed(mixed(self._recipe.seed, "order", epoch))
                order = torch.randperm(self._count, generator=source)
            place = step % self.steps_per_epoch * size
            yield [Draw(int(i), epoch) for i in order[place : place + size][self._mine]]


def validation_order(count: int, *, rank: int, processes: int) -> list[Draw]:
    """Every ``processes``-th image; shares are filled up to one length with images that do not count."""
    longest = -(-count // processes)
    mine = [Draw(i, 0) for i in range(rank, count, processes)]
    return mine + [Draw(0, 0, counted=False)] * (longest - len(mine))


def loaded(
    pictures: Dataset[Any], batches: Sampler[list[Draw]] | Sequence[list[Draw]], *, workers: int, pin: bool
) -> DataLoader[Any]:
    """A loader of batches: images (N, 3, side, side) uint8, labels (N,), whether each counts (N,)."""
    return DataLoader(
        pictures,
        batch_sampler=batches,
        num_workers=workers,
        pin_memory=pin,
        prefetch_factor=4 if workers else None,
        generator=torch.Generator(),  # or it draws from torch's global one
        worker_init_fn=_one_thread,
    )


def mixed(*parts: object) -> int:
    """A seed from what it depends on, the same on every machine."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:7], "little")


def _digest(names: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for name in names:
        digest.update(name.encode("utf-8", "surrogateescape") + b"\n")
    return digest.hexdigest()


def decoded(path: str) -> Tensor:
    """A file's pixels, uint8 of shape (3, height, width).

    Raises:
        InvalidInputError: the file cannot be read or decoded.
    """
    try:
        with opened_image(Path(path)) as image:
            pixels: Tensor = pil_to_tensor(as_rgb(image, Path(path)))
    except InvalidInputError as error:
        raise InvalidInputError(
            f"data: {path} cannot be decoded ({error}); put a whole one in its place (a run that was begun goes "
            "on with the same files only)"
        ) from error
    return pixels


def random_crop(pixels: Tensor, recipe: Recipe) -> Tensor:
    """A random part of an image, at most a third wider or higher, brought to a square and mirrored or not."""
    top, left, height, width = RandomResizedCrop.get_params(pixels, list(recipe.crop_scale), [3 / 4, 4 / 3])
    part = _resized(pixels[:, top : top + height, left : left + width], recipe.resolution, recipe.resolution)
    shown: Tensor = _MIRROR(part)
    return shown


def _one_thread(_: int) -> None:
    torch.set_num_threads(1)


def _centre(pixels: Tensor, recipe: Recipe) -> Tensor:
    """The middle of an image whose short side was brought to ``resize``."""
    short = min(pixels.shape[1:])
    height, width = (recipe.resize * side // short for side in pixels.shape[1:])
    if height * width > LARGEST:
        raise InvalidInputError(f"data: expected images less narrow than one of {tuple(pixels.shape[1:])} pixels")
    middle: Tensor = center_crop(_resized(pixels, height, width), [recipe.resolution, recipe.resolution])
    return middle


def _resized(pixels: Tensor, height: int, width: int) -> Tensor:
    """Bilinear with antialiasing, in integers: the same on every CPU, as torchvision's is not, and sooner done."""
    image = pixels[None].contiguous(memory_format=torch.channels_last)  # other layouts take twice as long
    return torch.nn.functional.interpolate(image, size=(height, width), mode="bilinear", antialias=True)[0]
