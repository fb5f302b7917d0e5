"""Images from folders and arrays: as torchvision and numpy read them, piece by piece, with errors that name files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.measure.arrays import ArrayData
from captum_lipschitz.measure.folder import FolderData, read_class_index


def _image(path: Path, width: int, height: int, *, mode: str = "RGB", seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


@pytest.mark.parametrize(("width", "height"), [(40, 30), (30, 41), (33, 33)])
@pytest.mark.parametrize(("resize", "crop"), [(24, 20), (24, 23), (None, 21), (50, 50)])
def test_preparation_is_torchvisions(tmp_path: Path, width: int, height: int, resize: int | None, crop: int) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    path = _image(tmp_path / "a" / "0.png", width, height)
    steps = [transforms.Resize(resize)] if resize else []
    expected = transforms.Compose([*steps, transforms.CenterCrop(crop), transforms.ToTensor()])
    data = FolderData(tmp_path, resize=resize, crop=crop)
    data.check(0, 1)
    with Image.open(path) as image:
        assert torch.equal(data.images(0, 1)[0], expected(image.convert("RGB")))


def test_classes_and_files_come_in_order(tmp_path: Path) -> None:
    torchvision = pytest.importorskip("torchvision")
    for name in ("b/2.png", "b/10.png", "a/x.jpg", "c/deep/1.PNG", "c/0.bmp"):
        _image(tmp_path / name, 8, 8, mode="L" if name.endswith("bmp") else "RGB")
    (tmp_path / "b" / "notes.txt").write_text("no image")
    data = FolderData(tmp_path)
    theirs = torchvision.datasets.ImageFolder(tmp_path)
    assert [(str(tmp_path / data.name(i)), int(label)) for i, label in enumerate(data.labels)] == theirs.samples
    assert data.folder_classes == 3
    assert data.images(0, 5).shape == (5, 3, 8, 8)


def test_a_limit_prefers_no_class(tmp_path: Path) -> None:
    for i in range(12):
        _image(tmp_path / "abc"[i // 4] / f"{i}.png", 8, 8)
    assert FolderData(tmp_path, limit=3).labels.tolist() == [0, 1, 2]
    assert FolderData(tmp_path, limit=6).labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert len(FolderData(tmp_path, limit=50).labels) == 12


@pytest.mark.parametrize(
    "content",
    [{"a": [7, "tench"], "b": [3, "goldfish"]}, {"7": ["a", "tench"], "3": ["b", "goldfish"]}, {"a": 7, "b": "3"}],
)
def test_class_index_forms(tmp_path: Path, content: dict[str, Any]) -> None:
    (tmp_path / "index.json").write_text(json.dumps(content))
    if content.get("b") != "3":
        assert read_class_index(tmp_path / "index.json") == {"a": 7, "b": 3}
    for name in ("a/0.png", "b/0.png"):
        _image(tmp_path / "images" / name, 8, 8)
    if content.get("b") != "3":
        data = FolderData(tmp_path / "images", class_index=tmp_path / "index.json")
        assert (data.labels.tolist(), data.folder_classes) == ([7, 3], None)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[", "cannot be read as JSON"),
        ("[]", "expected a JSON object"),
        ('{"a": [true]}', "got 'a'"),
        ('{"a": [-1, "x"]}', "got 'a'"),
        ('{"a": []}', "got 'a'"),
        ('{"b": 0}', "has no class for the folder 'a'"),
    ],
)
def test_class_indices_that_cannot_be_used(tmp_path: Path, content: str, message: str) -> None:
    _image(tmp_path / "images" / "a" / "0.png", 8, 8)
    (tmp_path / "index.json").write_text(content)
    with pytest.raises(InvalidInputError, match=f"class_index: .*{message}"):
        FolderData(tmp_path / "images", class_index=tmp_path / "index.json")


def test_damaged_images_are_named_before_the_work(tmp_path: Path) -> None:
    for ending in ("jpg", "png", "bmp"):
        folder = tmp_path / ending
        whole = _image(folder / "a" / f"whole.{ending}", 64, 64).read_bytes()
        FolderData(folder).check(0, 1)
        (folder / "a" / f"cut.{ending}").write_bytes(whole[: len(whole) // 2])
        with pytest.raises(InvalidInputError, match=rf"data: .*cut\.{ending} cannot be decoded"):
            FolderData(folder).check(0, 2)
        (folder / "a" / f"cut.{ending}").write_bytes(b"text")
        with pytest.raises(InvalidInputError, match=rf"data: .*cut\.{ending} cannot be read as an image"):
            FolderData(folder).check(0, 2)
    trailing = tmp_path / "jpg" / "a" / "cut.jpg"
    trailing.write_bytes((tmp_path / "jpg" / "a" / "whole.jpg").read_bytes() + b"\0" * 200)
    FolderData(tmp_path / "jpg").check(0, 2)  # decodes, so it is whole


def test_sizes_that_do_not_fit(tmp_path: Path) -> None:
    _image(tmp_path / "a" / "0.png", 20, 16)
    _image(tmp_path / "a" / "1.png", 16, 16)
    with pytest.raises(InvalidInputError, match=r"1\.png with 16 x 16 and others with 20 x 16 .*resize and crop"):
        FolderData(tmp_path).check(0, 2)
    with pytest.raises(InvalidInputError, match=r"crop: expected images of at least 17 pixels, got .*0\.png"):
        FolderData(tmp_path, crop=17).check(0, 2)
    FolderData(tmp_path, resize=32, crop=32).check(0, 2)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="data: expected class folders"):
        FolderData(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(InvalidInputError, match="data: expected images"):
        FolderData(tmp_path)


@given(data=st.data(), compressed=st.booleans(), floating=st.booleans())
def test_pieces_of_an_array_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, *, compressed: bool, floating: bool
) -> None:
    path = tmp_path_factory.mktemp("npz") / "d.npz"
    count = data.draw(st.integers(1, 12))
    images = np.random.default_rng(0).integers(0, 256, (count, 3, 5, 4), dtype=np.uint8)
    stored = (images / 255).astype(np.float64) if floating else images
    (np.savez_compressed if compressed else np.savez)(path, images=stored, labels=np.arange(count, dtype=np.uint8))
    opened = ArrayData(path)
    expected = torch.from_numpy(images).float() / 255
    for _ in range(3):  # forwards, backwards, overlapping
        start = data.draw(st.integers(0, count - 1))
        stop = data.draw(st.integers(start + 1, count))
        torch.testing.assert_close(opened.images(start, stop), expected[start:stop], rtol=0, atol=1e-7)
    assert opened.labels.tolist() == list(range(count))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((2, 3, 8, 8), (2, 3, 8, 8)),
        ((2, 8, 8, 3), (2, 3, 8, 8)),
        ((2, 8, 9, 1), (2, 1, 8, 9)),
        ((2, 8, 9), (2, 1, 8, 9)),
        ((2, 7), (2, 7)),
        ((2, 3, 8, 3), (2, 3, 8, 3)),
        ((2, 16, 8, 8), (2, 16, 8, 8)),
    ],
)
def test_layouts(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    images = np.random.default_rng(0).random(shape, dtype=np.float32)
    np.savez(tmp_path / "d.npz", images=images, labels=np.zeros(2, dtype=int))
    found = ArrayData(tmp_path / "d.npz").images(0, 2)
    assert tuple(found.shape) == expected
    moved = images.transpose(0, 3, 1, 2) if shape[-1] != expected[-1] else images
    assert torch.equal(found, torch.from_numpy(moved.reshape(expected).copy()))


@pytest.mark.parametrize(
    "names", [("images", "labels"), ("test_images", "test_labels"), ("x", "y"), ("x_test", "y_test")]
)
def test_names_of_arrays(tmp_path: Path, names: tuple[str, str]) -> None:
    arrays = {names[0]: np.ones((3, 4), dtype=">f4"), names[1]: np.array([[2], [1], [0]]), "train_images": np.zeros(1)}
    np.savez(tmp_path / "d.npz", **arrays)
    data = ArrayData(tmp_path / "d.npz", limit=2)
    assert data.labels.tolist() == [2, 1]
    assert torch.equal(data.images(0, 2), torch.ones(2, 4))
    assert data.identity != ArrayData(tmp_path / "d.npz").identity


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"pictures": np.zeros(1)}, InvalidInputError, r"expected arrays images and labels, .* got \['pictures'\]"),
        (
            {"images": np.zeros((2, 3)), "labels": np.zeros(3, int)},
            InvalidInputError,
            "as many labels as images, 2, got 3",
        ),
        ({"images": np.zeros((2, 3)), "labels": np.zeros(2)}, InvalidTypeError, "integer classes .* got float64"),
        (
            {"images": np.zeros((2, 3), int), "labels": np.zeros(2, int)},
            InvalidTypeError,
            "uint8 or floating, got int64",
        ),
        ({"images": np.zeros(2), "labels": np.zeros(2, int)}, InvalidInputError, r"\(N, C, H, W\) .* got \(2,\)"),
        ({"images": np.zeros((2, 0)), "labels": np.zeros(2, int)}, InvalidInputError, r"got \(2, 0\)"),
        ({"images": np.zeros((2, 3)), "labels": np.zeros((2, 5), int)}, InvalidInputError, "one class per image"),
        (
            {"images": np.zeros((3, 2)).T, "labels": np.zeros(2, int)},
            InvalidInputError,
            "row by row.*ascontiguousarray",
        ),
        (
            {"images": np.array([[None]]), "labels": np.zeros(1, int)},
            InvalidTypeError,
            "objects, and reading .* run code",
        ),
    ],
)
def test_arrays_that_cannot_be_used(
    tmp_path: Path, arrays: dict[str, Any], error: type[Exception], message: str
) -> None:
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(error, match=f"data: .*{message}"):
        ArrayData(tmp_path / "d.npz")


def test_a_damaged_archive_is_named(tmp_path: Path) -> None:
    path = tmp_path / "d.npz"
    np.savez_compressed(path, images=np.random.default_rng(0).random((40, 50)), labels=np.zeros(40, int))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidInputError, match=r"d\.npz cannot be read as \.npz"):
        ArrayData(path)
    path.write_bytes(whole[:3000] + bytes(3000) + whole[6000:])
    with pytest.raises(InvalidInputError, match=r"images 0 to 39 of .*d\.npz cannot be read"):
        ArrayData(path).images(0, 40)


def test_the_real_arrays(data_folder: Path) -> None:
    data = ArrayData(data_folder / "cifar10_subset.npz")
    with np.load(data_folder / "cifar10_subset.npz") as arrays:
        assert torch.equal(data.images(1000, 1017), torch.from_numpy(arrays["test_images"][1000:]).float() / 255)
        assert data.labels.tolist() == arrays["test_labels"].tolist()


def test_the_real_folder(data_folder: Path) -> None:
    root = data_folder / "imagenet"
    data = FolderData(root / "val", class_index=root / "classes.json", limit=4, resize=256, crop=227)
    data.check(0, 4)
    assert data.images(0, 4).shape == (4, 3, 227, 227)
    index = read_class_index(root / "classes.json")
    assert data.labels.tolist() == [index[Path(data.name(i)).parts[0]] for i in range(4)]


def test_several_labels_and_volumes_are_taken_where_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "several.npz"
    labels = np.array([[True, False], [False, True]])
    np.savez(path, images=np.zeros((2, 1, 3, 4, 5), np.float32), labels=labels)
    with pytest.raises(InvalidTypeError, match="expected integer classes"):
        ArrayData(path)
    data = ArrayData(path, several_labels=True)
    assert data.labels.tolist() == [[1, 0], [0, 1]]
    assert data.images(0, 2).shape == (2, 1, 3, 4, 5)
    np.savez(path, images=np.zeros((2, 4), np.float32), labels=labels.astype(int))
    with pytest.raises(InvalidInputError, match="one class per image"):
        ArrayData(path)
