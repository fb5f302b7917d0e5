"""CIFAR-10 in forms that are damaged, lie about their size, or start programs; results that somebody changed."""

from __future__ import annotations

import io
import lzma
import resource
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from hostile import ENDLESS, array_file, damaged, endless, png, with_member, within
from PIL import Image

from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples" / "cifar10"))

from cifar10_training.images import ARCHIVE, CLASSES, SUBSET, load_images
from cifar10_training.runs import read_run

CIFAR10 = Path(__file__).resolve().parents[2] / "examples" / "cifar10"
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")  # Pillow's, on damaged files


def _picture(kind: str = "png") -> bytes:
    written = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(written, format=kind)
    return written.getvalue()


def _subset(*, compressed: bool = False) -> bytes:
    written, arrays = io.BytesIO(), {}
    for part in ("train", "test"):
        arrays[f"{part}_images"] = np.random.default_rng(0).integers(0, 256, (10, 3, 32, 32), dtype=np.uint8)
        arrays[f"{part}_labels"] = np.arange(10)
    (np.savez_compressed if compressed else np.savez)(written, **arrays)
    return written.getvalue()


def _tar(*changed: tuple[str, bytes]) -> bytes:
    """An archive of one picture of each class, some of them replaced."""
    written = io.BytesIO()
    members = {f"{part}/{name}/0.png": _picture() for part in ("train", "test") for name in CLASSES} | dict(changed)
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return written.getvalue()


def _read(folder: Path) -> None:
    with within(60):
        load_images(folder, held_out=0)


@pytest.mark.parametrize("compressed", [False, True])
def test_damaged_arrays_are_read_or_refused(tmp_path: Path, *, compressed: bool) -> None:
    refused = 0
    for content in damaged(_subset(compressed=compressed), each=30):
        (tmp_path / SUBSET).write_bytes(content)
        try:
            _read(tmp_path)
        except CaptumLipschitzError as error:
            refused += 1
            assert "data: " in str(error)  # noqa: PT017 - most are refused, and some are whole
    assert refused


@pytest.mark.parametrize(
    ("member", "content", "compression"),
    [
        ("train_labels.npy", array_file((2**62, 2**62)), zipfile.ZIP_STORED),
        ("train_labels.npy", array_file((10,), "|O", b"..."), zipfile.ZIP_STORED),
        ("train_labels.npy", array_file((200_000_000,)) + bytes(200_000_000), zipfile.ZIP_DEFLATED),
        ("test_images.npy", array_file((101_000, 3, 32, 32)) + bytes(101_000 * 3072), zipfile.ZIP_DEFLATED),
        ("test_labels.npy", array_file((10,), "<f8") + bytes(80), zipfile.ZIP_STORED),
        ("test_labels.npy", array_file((10,), "|u1") + b"\x0a" * 10, zipfile.ZIP_STORED),
        ("train_labels.npy", array_file((10,), "|i1") + b"\xff" * 10, zipfile.ZIP_STORED),
    ],
    ids=["huge", "objects", "many labels", "many images", "float labels", "class beyond", "class below"],
)
def test_arrays_that_are_not_cifar10(member: str, content: bytes, compression: int, tmp_path: Path) -> None:
    (tmp_path / SUBSET).write_bytes(with_member(_subset(), member, content, compression=compression))
    with pytest.raises(CaptumLipschitzError, match="data: "):
        _read(tmp_path)


def test_damaged_archives_are_read_or_refused(tmp_path: Path) -> None:
    refused = 0
    for whole in (lzma.compress(_tar()), _tar()):
        for content in damaged(whole, each=8):
            (tmp_path / ARCHIVE).write_bytes(
                content if whole.startswith(b"\xfd7z") else lzma.compress(content, preset=0)
            )
            try:
                _read(tmp_path)
            except CaptumLipschitzError as error:
                refused += 1
                assert "data: " in str(error)  # noqa: PT017 - most are refused, and some are whole
    assert refused


def _sparse(size: int) -> bytes:
    """A header of GNU tar that says that a member is a hole of so many bytes."""
    info = tarfile.TarInfo("train/cat/0.png")
    info.type = tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[124:136] = b"00000000000\0"
    block[483:495] = b"\x80" + size.to_bytes(11, "big")
    block[386:398] = b"\x80" + (size - 1).to_bytes(11, "big")
    block[398:410] = b"00000000000\0"
    block[148:156] = b"        "
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


def _long_name(size: int) -> bytes:
    """A header of GNU tar whose member's name has so many bytes; the name itself is zeros."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, size
    return info.tobuf(tarfile.GNU_FORMAT)


BOMBS = """
import resource, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from captum_lipschitz.errors import CaptumLipschitzError
from cifar10_training.images import load_images
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for folder in map(Path, sys.argv[2:]):
    try:
        load_images(folder)
        print("read", folder)
    except CaptumLipschitzError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_bombs_take_no_memory(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in ("hole", "member", "name", "array", "picture")]
    for folder in folders:
        folder.mkdir()
    hole, member, name, array, picture = folders
    (hole / ARCHIVE).write_bytes(lzma.compress(_sparse(2**40)))
    zeros = bytes(2**28)
    large = tarfile.TarInfo("train/cat/0.png")
    large.size = 4 * len(zeros)
    for where, header in ((member, large.tobuf()), (name, _long_name(4 * len(zeros)))):
        with lzma.open(where / ARCHIVE, "wb", preset=0) as file:
            file.write(header)
            for _ in range(4):
                file.write(zeros)
    del zeros
    (array / SUBSET).write_bytes(_subset(compressed=True))
    packed = with_member(_subset(), "train_images.npy", array_file((2**38,), content=bytes(10)))
    (array / SUBSET).write_bytes(packed)
    (picture / "train" / "cat").mkdir(parents=True)
    (picture / "train" / "cat" / "0.png").write_bytes(png(12_000, 12_000))
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(CIFAR10), *map(str, folders)],
        capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000, done.stdout  # kilobytes


def test_programs_are_not_started_for_other_formats(tmp_path: Path) -> None:
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 32 32\n%%EndComments\n(x) print\n%%EOF\n"
    with Image.open(io.BytesIO(eps)) as image:
        assert image.format == "EPS"  # Pillow would hand it to Ghostscript
    path = tmp_path / "train" / "cat" / "0.jpg"
    path.parent.mkdir(parents=True)
    path.write_bytes(eps)
    with pytest.raises(InvalidInputError, match=r"data: .*cat/0\.jpg .*no JPEG, PNG"):
        _read(tmp_path)


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_damaged_pictures_are_read_or_refused_by_name(kind: str, tmp_path: Path) -> None:
    path, refused = tmp_path / "train" / "cat" / f"0.{kind.replace('jpeg', 'jpg')}", 0
    path.parent.mkdir(parents=True)
    for content in damaged(_picture(kind), each=10):
        path.write_bytes(content)
        with pytest.raises(InvalidInputError) as error:  # there is no picture of any other class, and no test
            _read(tmp_path)
        refused += path.name in str(error.value)
    assert refused


@ENDLESS
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    (tmp_path / "train" / "cat").mkdir(parents=True)
    endless(tmp_path / "train" / "cat" / "0.png", kind)
    with pytest.raises(InvalidInputError, match=r"data: .*0\.png|expected pictures"):
        _read(tmp_path)
    endless(tmp_path / "results.json", kind)
    with within(20), pytest.raises(InvalidInputError, match="run: "):
        read_run(tmp_path)


@pytest.mark.parametrize("content", [b"", b"\xff", b"[" * 1_000_000, b'{"a":' * 200_000, b"9" * 1_000_000, b"[]", b"3"])
def test_results_that_are_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "results.json").write_bytes(content)
    with within(60), pytest.raises(InvalidInputError, match="run: "):
        read_run(tmp_path)
