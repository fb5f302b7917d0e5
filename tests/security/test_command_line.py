"""The command line on hostile files: one line, a status, no traceback; and bombs in a process that is watched."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hostile import array_file, damaged, png, with_member, within
from PIL import Image

from captum_lipschitz.cli import main

Ara = Callable[..., tuple[int, str]]


@pytest.fixture
def ara(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ara:
    (tmp_path / "hostile_models.py").write_text(
        "from torch import nn\ndef small():\n    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))\n"
    )
    np.savez(tmp_path / "data.npz", images=np.zeros((3, 3, 4, 4), np.uint8), labels=np.arange(3))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))

    def run(*arguments: str, data: str = "data.npz") -> tuple[int, str]:
        command = ["ara", "--model", "hostile_models:small", "--data", data, "--output", "out", "--device", "cpu"]
        with within(120):
            status = main([*command, "--doubts", "off", "--effort", "fast", *arguments])
        return status, capsys.readouterr().err

    return run


def _refused(told: tuple[int, str]) -> str:
    status, errors = told
    assert status == 1
    assert "Traceback" not in errors
    *_, line = errors.strip().splitlines()  # before it there may be a bar of progress
    assert line.startswith("captum-lipschitz: ")
    assert errors.count("captum-lipschitz: ") == 1
    return line


def test_damaged_files_are_one_line(ara: Ara) -> None:
    whole = Path("data.npz").read_bytes()
    for content in (b"", whole[:100], whole[:-30], b"PK" + bytes(100), next(damaged(whole, seed=3))):
        Path("data.npz").write_bytes(content)
        assert "data.npz" in _refused(ara())
    Path("data.npz").write_bytes(whole)
    for name, content in (("w.pt", b"\x80\x02garbage"), ("w.safetensors", b"\xff" * 40), ("w.pt", whole)):
        Path(name).write_bytes(content)
        assert name in _refused(ara("--weights", name))


def test_figures_that_are_none_are_one_line(ara: Ara) -> None:
    np.savez("data.npz", images=np.full((3, 3, 4, 4), np.nan, np.float32), labels=np.arange(3))
    assert "images" in _refused(ara())


def test_names_write_nothing_on_the_terminal(ara: Ara) -> None:
    folder = Path("images", "cat\x1b[2J\nnot: an error")
    folder.mkdir(parents=True)
    (folder / "0.png").write_bytes(b"no image")
    line = _refused(ara(data="images"))
    assert "\x1b" not in line
    assert "cat\\x1b[2J\\nnot: an error" in line


def test_too_little_memory_is_one_line(ara: Ara, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise MemoryError("no room\nfor that")

    monkeypatch.setattr("captum_lipschitz.measure.run._run", full)
    assert _refused(ara()) == "captum-lipschitz: not enough memory (no room\\nfor that)"


BOMBS = """
import resource, sys
from pathlib import Path
from captum_lipschitz.errors import CaptumLipschitzError
from captum_lipschitz.measure.arrays import ArrayData
from captum_lipschitz.measure.folder import FolderData, read_class_index
from captum_lipschitz.measure.weights import read_weights
Image = __import__("PIL.Image").Image
Image.init()
read = {"npz": lambda p: ArrayData(p), "pt": read_weights, "safetensors": read_weights, "json": read_class_index,
        "png": lambda p: FolderData(p.parents[1]).images(0, 1)}
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for path in map(Path, sys.argv[1:]):
    try:
        read[path.suffix[1:]](path)
        print("read", path)
    except CaptumLipschitzError:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux")
def test_bombs_take_no_memory(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((2, 4), np.uint8), labels=np.arange(2))
    packed = with_member((tmp_path / "a.npz").read_bytes(), "labels.npy", array_file((2**38,), content=bytes(10)))
    (tmp_path / "a.npz").write_bytes(packed)
    (tmp_path / "w.safetensors").write_bytes((2**60).to_bytes(8, "little") + b"{}")
    with (tmp_path / "long.json").open("wb") as file:
        file.truncate(2**36)
    (tmp_path / "deep.json").write_bytes(b"[" * 10_000_000)
    picture = tmp_path / "pictures" / "cat" / "0.png"
    picture.parent.mkdir(parents=True)
    picture.write_bytes(png(100_000, 100_000))
    files = ["a.npz", "w.safetensors", "long.json", "deep.json", "pictures/cat/0.png"]
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, *(str(tmp_path / name) for name in files)],
        capture_output=True, text=True, check=False, timeout=300,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CPU, (120, 120)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 200_000  # kilobytes; the least of them claims a hundred times as much


def test_the_picture_above_can_be_drawn(tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(png(3, 2, bytes([0, 1, 2, 3] * 2)))
    with Image.open(tmp_path / "0.png") as image:
        assert np.asarray(image).tolist() == [[1, 2, 3]] * 2
