"""Image files that are damaged, enormous or of another kind than they say; folders without an end."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pytest
from hostile import ENDLESS, damaged, endless, png, within
from PIL import Image

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.folder import FolderData
from captum_lipschitz.measure.images import LARGEST

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's, on damaged files


def _picture(kind: str) -> bytes:
    pixels, written = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(written, format=kind)
    return written.getvalue()


def _file(folder: Path, content: bytes = b"", name: str = "0.png") -> Path:
    path = folder / "cat" / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "tiff", "bmp", "ppm"])
def test_damaged_images_are_read_or_refused_by_name(kind: str, tmp_path: Path) -> None:
    path, refused = _file(tmp_path, _picture(kind), f"0.{kind}"), 0
    data = FolderData(tmp_path, resize=12, crop=8)
    for content in damaged(_picture(kind), each=10):
        path.write_bytes(content)
        try:
            with within(60):
                data.check(0, 1)
                data.images(0, 1)
        except InvalidInputError as error:
            refused += 1
            assert path.name in str(error)  # noqa: PT017 - most are refused, and some are whole
    assert refused


@pytest.mark.parametrize("size", [(2**31 - 1, 2**31 - 1), (200_000, 200_000), (2**31 - 1, 1)])
def test_more_pixels_than_memory_are_refused_by_the_header(size: tuple[int, int], tmp_path: Path) -> None:
    data = FolderData(_file(tmp_path, png(*size)).parents[1])
    for look in (data.check, data.images):
        with within(60), pytest.raises(InvalidInputError, match=r"data: .*0\.png cannot be read"):
            look(0, 1)


def test_a_line_is_not_enlarged_without_end(tmp_path: Path) -> None:
    width = LARGEST // 256**2 + 1
    data = FolderData(_file(tmp_path, png(width, 1, bytes(width + 1))).parents[1], resize=256, crop=224)
    for look in (data.check, data.images):
        with within(60), pytest.raises(InvalidInputError, match=r"resize: expected images of at most .*0\.png"):
            look(0, 1)


def test_programs_are_not_started_for_other_formats(tmp_path: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\n(x) print\n%%EOF\n"
    with Image.open(io.BytesIO(eps)) as image:
        assert image.format == "EPS"  # Pillow would hand it to Ghostscript
    path = _file(tmp_path, eps, "0.jpg")
    with pytest.raises(InvalidInputError, match=r"data: .*0\.jpg cannot be read as an image"):
        FolderData(path.parents[1]).images(0, 1)


@ENDLESS
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    _file(tmp_path, _picture("png"), "a.png")
    endless(tmp_path / "cat" / "b.png", kind)
    data = FolderData(tmp_path)
    if kind == "folder":
        assert len(data.labels) == 1
        return
    for look in (data.check, data.images):
        with within(20), pytest.raises(InvalidInputError, match=r"data: .*b\.png cannot be read"):
            look(1, 2)
    with within(20), pytest.raises(OSError, match="Not a regular file"):
        _ = data.identity


def test_folders_that_hold_themselves_are_walked_once(tmp_path: Path) -> None:
    _file(tmp_path, _picture("png"))
    for name in ("a", "b", "c"):
        (tmp_path / "cat" / name).symlink_to(tmp_path / "cat", target_is_directory=True)
    with within(20):
        assert FolderData(tmp_path).labels.tolist() == [0]


def test_names_that_are_no_text_can_be_told(tmp_path: Path) -> None:
    try:
        _file(tmp_path, _picture("png"), os.fsdecode(b"\xff\xfe.png"))
    except OSError:
        pytest.skip("the file system takes no such names")
    data = FolderData(tmp_path)
    assert data.name(0) == "cat/\\udcff\\udcfe.png"
    assert len(data.identity) == 64
    data.name(0).encode()
