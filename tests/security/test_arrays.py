"""``.npz`` files that are damaged, lie about their size, or hold objects."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import ENDLESS, Payload, array_file, damaged, endless, payload_works, with_member, within

from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError
from captum_lipschitz.measure import AraSettings
from captum_lipschitz.measure.arrays import ArrayData
from captum_lipschitz.measure.data import open_data


def _archive(*, compressed: bool = False) -> bytes:
    written = io.BytesIO()
    images = np.random.default_rng(0).integers(0, 256, (6, 3, 4, 4), dtype=np.uint8)
    (np.savez_compressed if compressed else np.savez)(written, images=images, labels=np.arange(6))
    return written.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_archives_are_read_or_refused_by_name(tmp_path: Path, *, compressed: bool) -> None:
    path, refused = tmp_path / "data.npz", 0
    for content in damaged(_archive(compressed=compressed), each=40):
        path.write_bytes(content)
        try:
            with within(60):
                ArrayData(path).images(0, 6)
        except CaptumLipschitzError as error:
            refused += 1
            assert "data: " in str(error)  # noqa: PT017 - most are refused, and some are whole
    assert refused


@pytest.mark.parametrize("member", ["images.npy", "labels.npy"])
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (array_file((2**40, 3, 4, 4), content=bytes(64)), "hold what its header says"),
        (array_file((2**62, 2**62), content=bytes(64)), "hold what its header says"),
        (array_file((-1, 3, 4, 4)), "hold what its header says|cannot be read as .npz"),
        (array_file((6,), "|O", b"..."), "objects, and reading those would run code"),
        (array_file((6,), "zzz"), "not an array of numpy|cannot be read"),
        (b"\x93NUMPY\x01\x00\x76\x1f" + b"(" * 8054, "not an array of numpy|cannot be read"),
        (b"", "not an array of numpy|cannot be read"),
    ],
)
def test_headers_that_lie(member: str, header: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(with_member(_archive(), member, header))
    with within(60), pytest.raises(CaptumLipschitzError, match=message):
        ArrayData(path)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_labels_packed_small_are_refused_before_they_are_unpacked(compression: int, tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    count = 200_000_000 if compression == zipfile.ZIP_DEFLATED else 1000
    labels = array_file((count,)) + bytes(count)
    content = with_member(_archive(), "labels.npy", labels, compression=compression)
    assert len(content) < 400_000
    path.write_bytes(content)
    with within(60), pytest.raises(InvalidInputError, match=r"at most 134217728 labels|stored or deflated"):
        ArrayData(path)


def test_a_size_that_deflate_cannot_reach_is_refused(tmp_path: Path) -> None:
    content = bytearray(with_member(_archive(), "labels.npy", array_file((100_000_000,)) + bytes(10)))
    for signature, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):  # both of the archive's entries say so
        name = content.rindex(b"labels.npy") if place == 24 else content.index(b"labels.npy")
        at = content.rindex(signature, 0, name)
        content[at + place : at + place + 4] = (100_000_000 + len(array_file((100_000_000,)))).to_bytes(4, "little")
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match="hold what its header says"):
        ArrayData(tmp_path / "data.npz")


def test_an_image_of_any_size_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    path.write_bytes(with_member(_archive(), "images.npy", array_file((6, 0, 2**20, 2**20))))
    with pytest.raises(InvalidInputError, match=r"expected images \(N, C, H, W\)"):
        ArrayData(path)


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    made = tmp_path / "made"
    for name in ("images", "labels"):
        arrays = {"images": np.zeros((1, 4), np.uint8), "labels": np.zeros(1, np.int64)}
        np.savez(tmp_path / "data.npz", **{**arrays, name: np.array([Payload(made)], dtype=object)}, allow_pickle=True)
        with pytest.raises(CaptumLipschitzError, match="objects, and reading those would run code"):
            ArrayData(tmp_path / "data.npz")
    assert not made.exists()
    assert payload_works(tmp_path)


def test_longer_floats_than_torch_has_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", images=np.zeros((2, 4), np.longdouble), labels=np.zeros(2, np.int64))
    with pytest.raises(CaptumLipschitzError, match="uint8 or floating"):
        ArrayData(tmp_path / "data.npz")


def test_members_with_a_password_are_refused(tmp_path: Path) -> None:
    content = bytearray(_archive())
    at = content.index(b"PK\x01\x02")
    content[at + 8] |= 1
    content[6] |= 1
    (tmp_path / "data.npz").write_bytes(content)
    with pytest.raises(InvalidInputError, match="cannot be read"):
        ArrayData(tmp_path / "data.npz")


def test_names_that_lead_elsewhere_are_names(tmp_path: Path) -> None:
    path = tmp_path / "data.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../images.npy", array_file((1, 4), content=bytes(4)))
        archive.writestr("/labels.npy", array_file((1,), content=bytes(1)))
    with pytest.raises(InvalidInputError, match=r"expected arrays images and labels"):
        ArrayData(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["data.npz"]


@ENDLESS
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = endless(tmp_path / "data.npz", kind)
    with within(20), pytest.raises(InvalidInputError, match="data: "):
        open_data(AraSettings(model="a:b", data=path, output=tmp_path / "out"))
    with within(20), pytest.raises(InvalidInputError, match="data: "):
        ArrayData(path)
