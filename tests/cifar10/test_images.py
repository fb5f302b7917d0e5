"""Every form of the data, and what augmentation may do to an image."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from cifar10_training.augmentation import PADDING, augmented, shuffled
from cifar10_training.images import CLASSES, Part, load_images, synthetic_images
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


def _picture(value: int) -> np.ndarray:
    return np.full((32, 32, 3), value, dtype=np.uint8)


def _write_folder(folder: Path, each: int = 3) -> None:
    for part in ("train", "test"):
        for label, name in enumerate(CLASSES):
            (folder / part / name).mkdir(parents=True)
            for number in range(each):
                Image.fromarray(_picture(20 * label + number)).save(folder / part / name / f"{number:04d}.png")


def test_class_folders_come_in_turns_and_the_last_of_each_class_are_held_out(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    images = load_images(tmp_path, held_out=10)
    assert images.test.labels[:10].tolist() == list(range(10))
    assert images.test.images[:10, 0, 0, 0].tolist() == [20 * label for label in range(10)]
    assert images.held_out.images[:, 0, 0, 0].tolist() == [20 * label + 2 for label in range(10)]
    assert len(images.train) == 20
    assert set(images.train.images[:, 0, 0, 0].tolist()).isdisjoint(images.held_out.images[:, 0, 0, 0].tolist())


def test_an_archive_holds_what_its_folders_would(tmp_path: Path) -> None:
    _write_folder(tmp_path / "folders")
    (tmp_path / "archive").mkdir()
    with tarfile.open(tmp_path / "archive" / "cifar10_jpeg.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "folders", arcname="some/root")
    folder, archived = (load_images(tmp_path / name, held_out=10) for name in ("folders", "archive"))
    for part in ("train", "held_out", "test"):
        assert torch.equal(getattr(folder, part).images, getattr(archived, part).images)
        assert torch.equal(getattr(folder, part).labels, getattr(archived, part).labels)


def test_an_array_beside_the_archive_is_what_is_tested_on(tmp_path: Path) -> None:
    _write_folder(tmp_path / "folders")
    with tarfile.open(tmp_path / "cifar10_jpeg.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "folders", arcname=".")
    exact = np.full((4, 3, 32, 32), 7, dtype=np.uint8)
    labels = np.array([3, 1, 2, 0], dtype=np.uint8)
    np.savez(tmp_path / "cifar10_subset.npz", test_images=exact, test_labels=labels)
    assert load_images(tmp_path, held_out=0).test.labels.tolist() == [3, 1, 2, 0]


def test_torchvisions_form_is_read_and_a_damaged_one_refused(tmp_path: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'captum-lipschitz[vision]'")
    batches = tmp_path / "cifar-10-batches-py"
    batches.mkdir()
    (batches / "data_batch_1").write_bytes(pickle.dumps({"data": [], "labels": []}))
    with pytest.raises(InvalidInputError, match="damaged or incomplete"):
        load_images(tmp_path)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda folder: folder, "expected cifar-10-batches-py/"),
        (lambda folder: (folder / "cifar10_jpeg.tar.xz").write_bytes(b"no archive"), "cannot be read"),
        (lambda folder: (folder / "cifar10_subset.npz").write_bytes(b"no array"), "cannot be read"),
        (lambda folder: (folder / "train").mkdir(), "expected pictures"),
    ],
)
def test_a_folder_without_usable_images_is_refused(tmp_path: Path, damage: object, message: str) -> None:
    damage(tmp_path)
    with pytest.raises(InvalidInputError, match=message):
        load_images(tmp_path)


def test_a_broken_picture_is_named(tmp_path: Path) -> None:
    _write_folder(tmp_path)
    (tmp_path / "train" / "cat" / "0001.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(InvalidInputError, match=r"cat/0001\.png"):
        load_images(tmp_path, held_out=10)


def test_an_array_of_objects_is_not_unpickled(tmp_path: Path) -> None:
    objects = np.array([io.StringIO], dtype=object)
    np.savez(tmp_path / "cifar10_subset.npz", **{f"{part}_{kind}": objects for part in ("train", "test")
                                                 for kind in ("images", "labels")})  # fmt: skip
    with pytest.raises(InvalidTypeError, match="objects, and reading those would run code"):
        load_images(tmp_path)


@pytest.mark.parametrize("held_out", [-10, 7, 30])
def test_a_split_that_cannot_be_is_refused(tmp_path: Path, held_out: int) -> None:
    _write_folder(tmp_path)
    with pytest.raises(InvalidInputError, match="held_out: expected a multiple of 10"):
        load_images(tmp_path, held_out=held_out)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_an_augmented_image_is_a_crop_of_the_padded_one_or_its_mirror(seed: int) -> None:
    images = torch.arange(2 * 3 * 8 * 8, dtype=torch.float32).view(2, 3, 8, 8)
    padded = torch.nn.functional.pad(images, [PADDING] * 4, mode="replicate")
    for row, answer in enumerate(augmented(images, torch.Generator().manual_seed(seed))):
        crops = padded[row].unfold(1, 8, 1).unfold(2, 8, 1)
        same = [(crops == candidate[:, None, None]).all((0, 3, 4)).any() for candidate in (answer, answer.flip(2))]
        assert any(same)


def test_augmentation_reaches_every_crop_and_both_mirrors() -> None:
    image = torch.arange(8 * 8, dtype=torch.float32).view(1, 1, 8, 8).expand(4000, 3, 8, 8)
    found = {tuple(one.flatten().tolist()) for one in augmented(image, torch.Generator().manual_seed(0))[:, 0]}
    assert len(found) == 9 * 9 * 2


def test_an_epoch_has_each_image_once_and_repeats_with_the_seed() -> None:
    part = Part(torch.arange(10, dtype=torch.uint8)[:, None, None, None].expand(10, 3, 32, 32), torch.arange(10))
    batches = list(shuffled(part, 3, torch.Generator().manual_seed(1)))
    labels = torch.cat([labels for _, labels in batches])
    assert len(labels) == 9
    assert len(labels.unique()) == 9
    again = torch.cat([labels for _, labels in shuffled(part, 3, torch.Generator().manual_seed(1))])
    assert torch.equal(labels, again)
    inputs = torch.cat([inputs for inputs, _ in batches])
    assert torch.equal(inputs[:, 0, 0, 0], labels / 255)


def test_synthetic_images_repeat_with_their_seed() -> None:
    first, second = (synthetic_images(16, seed=3) for _ in range(2))
    assert torch.equal(first.train.images, second.train.images)
    assert not torch.equal(first.train.images, synthetic_images(16, seed=4).train.images)


@pytest.mark.slow
def test_the_real_archive_is_whole_and_tested_on_exact_images(data_folder: Path) -> None:
    images = load_images(data_folder)
    assert [len(part) for part in (images.train, images.held_out, images.test)] == [45_000, 5_000, 1_017]
    assert images.train.labels.bincount().tolist() == [4_500] * 10
    assert images.held_out.labels[:20].tolist() == [*range(10)] * 2
    exact = np.load(data_folder / "cifar10_subset.npz")["test_images"]
    assert np.array_equal(images.test.images.numpy(), exact)
