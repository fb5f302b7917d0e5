"""Which images a step sees, and what of them: the same for any number of workers, processes and interruptions."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import subprocess
import sys
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_folders import CLASSES, IMAGENET, write_images
from imagenet_training.pictures import Draw, Pictures, TrainingOrder, decoded, loaded, random_crop, validation_order
from imagenet_training.recipe import Recipe
from PIL import Image
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError

RECIPE = Recipe(model="resnet18", resolution=24, resize=32, epochs=3, warmup_epochs=0, batch_size=4)


def _order(count: int, *, start: int = 0, rank: int = 0, processes: int = 1) -> list[list[Draw]]:
    return list(TrainingOrder(count, RECIPE, start=start, rank=rank, processes=processes))


def _pixels(folder: Path, *, workers: int, start: int = 0) -> list[Tensor]:
    pictures = Pictures(folder / "train", RECIPE, train=True)
    order = TrainingOrder(len(pictures), RECIPE, start=start, rank=0, processes=1)
    return [images for images, _, _ in loaded(pictures, order, workers=workers, pin=False)]


@given(st.integers(4, 60), st.sampled_from([1, 2, 4]), st.data())
def test_an_epoch_shows_each_image_once_whoever_shares_it(count: int, processes: int, data: st.DataObject) -> None:
    whole = _order(count)
    shares = [_order(count, rank=rank, processes=processes) for rank in range(processes)]
    assert [list(chain(*parts)) for parts in zip(*shares, strict=True)] == whole
    per_epoch = count // RECIPE.batch_size
    assert len(whole) == 3 * per_epoch
    for epoch in range(3):
        seen = [draw for batch in whole[epoch * per_epoch : (epoch + 1) * per_epoch] for draw in batch]
        assert len({draw.number for draw in seen}) == len(seen) == per_epoch * RECIPE.batch_size
        assert {draw.epoch for draw in seen} == {epoch}
    start = data.draw(st.integers(0, len(whole)))
    assert _order(count, start=start) == whole[start:]


@given(st.integers(1, 40), st.integers(1, 6))
def test_validation_counts_each_image_once_in_shares_of_one_length(count: int, processes: int) -> None:
    shares = [validation_order(count, rank=rank, processes=processes) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1
    assert sorted(draw.number for share in shares for draw in share if draw.counted) == list(range(count))


def test_the_number_of_workers_and_an_interruption_change_no_pixel(pictures_folder: Path) -> None:
    alone = _pixels(pictures_folder, workers=0)
    torch.manual_seed(5)  # whatever else draws
    several = _pixels(pictures_folder, workers=3)
    later = _pixels(pictures_folder, workers=2, start=7)
    assert len(alone) == 18
    for a, b in zip(alone, several, strict=True):
        assert a.equal(b)
    for a, b in zip(alone[7:], later, strict=True):
        assert a.equal(b)


def test_crops_differ_between_epochs_and_seeds(pictures_folder: Path) -> None:
    pictures = Pictures(pictures_folder / "train", RECIPE, train=True)
    other = Pictures(pictures_folder / "train", Recipe(model="resnet18", resolution=24, resize=32, seed=1), train=True)
    first, again, later = (pictures[Draw(0, epoch)][0] for epoch in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(later)
    assert not first.equal(other[Draw(0, 0)][0])


def test_augmentation_leaves_the_global_random_state_alone(pictures_folder: Path) -> None:
    before = torch.get_rng_state()
    _pixels(pictures_folder, workers=0)
    assert torch.get_rng_state().equal(before)


def test_validation_shows_the_centre(pictures_folder: Path) -> None:
    pictures = Pictures(pictures_folder / "val", RECIPE, train=False)
    image, label, counted = pictures[Draw(len(pictures) - 1, 0)]
    assert image.shape == (3, 24, 24)
    assert image.dtype == torch.uint8
    assert (pictures.classes, label, counted) == (list(CLASSES), 2, True)


def _saved(image: Image.Image, path: Path, **options: Any) -> str:
    image.save(path, **options)
    return str(path)


def test_every_kind_of_file_that_imagenet_has_is_decoded(tmp_path: Path) -> None:
    blocks = np.random.default_rng(0).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    colour = Image.fromarray(blocks).resize((35, 25), Image.Resampling.NEAREST)
    exact = torch.from_numpy(np.array(colour)).permute(2, 0, 1)
    assert decoded(_saved(colour, tmp_path / "png.JPEG", format="PNG")).equal(exact)
    grey = decoded(_saved(colour.convert("L"), tmp_path / "grey.JPEG", quality=100))
    assert grey.shape == (3, 25, 35)
    assert grey[0].equal(grey[1])
    assert grey[0].equal(grey[2])
    for mode in ("RGB", "CMYK"):
        pixels = decoded(_saved(colour.convert(mode), tmp_path / f"{mode}.JPEG", quality=100, subsampling=0))
        assert (pixels.int() - exact.int()).abs().max() <= 8


def test_a_file_that_is_cut_off_or_no_image_is_named(tmp_path: Path) -> None:
    whole = Path(_saved(Image.new("RGB", (64, 64), "red"), tmp_path / "red.JPEG")).read_bytes()
    for content in (b"", b"no image", whole[: len(whole) // 2]):
        (tmp_path / "bad.JPEG").write_bytes(content)
        with pytest.raises(
            InvalidInputError, match=r"data: .*bad\.JPEG cannot be decoded .*; put a whole one in its place"
        ):
            decoded(str(tmp_path / "bad.JPEG"))


def test_a_crop_of_everything_is_the_image_or_its_mirror_image() -> None:
    image = torch.arange(3 * 24 * 24).reshape(3, 24, 24).remainder(251).to(torch.uint8)
    whole = dataclasses.replace(RECIPE, crop_scale=(1.0, 1.0))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        shown = [random_crop(image, whole) for _ in range(40)]
    mirrored = [part.equal(image.flip(-1)) for part in shown]
    assert all(part.equal(image) != is_mirrored for part, is_mirrored in zip(shown, mirrored, strict=True))
    assert 8 <= sum(mirrored) <= 32


def test_the_centre_is_that_of_pillow(tmp_path: Path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 90, 3), dtype=np.uint8))
    (tmp_path / "ant").mkdir()
    _saved(image, tmp_path / "ant" / "0.png")
    shown = Pictures(tmp_path, RECIPE, train=False)[Draw(0, 0)][0]
    small = np.array(image.resize((45, 32), Image.Resampling.BILINEAR))  # then 24 of 32 rows, 24 of 45 columns
    there = [torch.from_numpy(small[4:28, left : left + 24]).permute(2, 0, 1).int() for left in (10, 11)]
    assert min(int((shown.int() - part).abs().max()) for part in there) <= 1


def test_pixels_do_not_depend_on_the_instructions_of_the_cpu(pictures_folder: Path) -> None:
    code = (
        "import sys, hashlib, torch; from pathlib import Path; sys.path[:0] = sys.argv[2:];"
        "import test_pictures as t; print(t.torch.backends.cpu.get_cpu_capability(), t.fingerprint(Path(sys.argv[1])))"
    )
    places = [str(pictures_folder), str(IMAGENET), str(Path(__file__).parent), str(Path(__file__).parents[1])]
    plain = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    done = subprocess.run([sys.executable, "-c", code, *places], capture_output=True, text=True, check=True, env=plain)
    capability, _, told = done.stdout.strip().rpartition(" ")
    assert capability in {"DEFAULT", "NO AVX"}  # torch 2.6 calls it so
    assert told == fingerprint(pictures_folder)


def fingerprint(folder: Path) -> str:
    """Of all training pixels of one epoch."""
    pictures = Pictures(folder / "train", RECIPE, train=True)
    pixels = torch.stack([pictures[Draw(i, 0)][0] for i in range(len(pictures))])
    return hashlib.sha256(pixels.contiguous().numpy().tobytes()).hexdigest()


def test_folders_and_sizes_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match=r"data: expected class folders of images in .*nowhere"):
        Pictures(tmp_path / "nowhere", RECIPE, train=True)
    write_images(tmp_path / "train", each=1)
    (tmp_path / "train" / "dog").mkdir()
    with pytest.raises(InvalidInputError, match=r"data: expected class folders of images .*dog"):
        Pictures(tmp_path / "train", RECIPE, train=True)
    with pytest.raises(InvalidInputError, match="batch_size: expected at most the 3 training images, got 4"):
        TrainingOrder(3, RECIPE, start=0, rank=0, processes=1)
    with pytest.raises(InvalidInputError, match="batch_size: expected a multiple of the 3 processes, got 4"):
        TrainingOrder(30, RECIPE, start=0, rank=0, processes=3)
