"""Chunks on disk: read back to the bit, redone where damaged, never mixed with those of other settings."""

from __future__ import annotations

import json
import math
import os
import time
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_lipschitz._files import create_whole, remove_leftovers, write_whole
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure import AraSettings
from captum_lipschitz.measure.chunks import Chunk, ChunkStore, spans
from captum_lipschitz.measure.settings import differences, fingerprint
from captum_lipschitz.metrics.measurement import Part

SIZES = st.one_of(st.just(math.inf), st.floats(0, 1e6, allow_nan=False))


def _chunk(distances: list[float]) -> Chunk:
    count = len(distances)
    part = Part(
        distances=torch.tensor(distances, dtype=torch.float64),
        labels=torch.arange(count),
        correct=torch.arange(count) % 2 == 0,
        gradient_evaluations=torch.full((count,), 7),
        num_classes=10,
    )
    return Chunk(part, 0.25)


def _store(folder: Path, **identity: object) -> ChunkStore:
    store = ChunkStore(folder, {"model": "a", **identity})
    store.claim()
    return store


def _equal(a: Chunk | None, b: Chunk) -> bool:
    return (
        a is not None
        and a.part.num_classes == b.part.num_classes
        and all(
            torch.equal(getattr(a.part, name), getattr(b.part, name))
            and getattr(a.part, name).dtype == getattr(b.part, name).dtype
            for name in ("distances", "labels", "correct", "gradient_evaluations")
        )
    )


@given(images=st.integers(1, 200), chunk_size=st.integers(1, 50))
def test_chunks_cover_every_image_once(images: int, chunk_size: int) -> None:
    covered = [i for start, stop in spans(images, chunk_size) for i in range(start, stop)]
    assert covered == list(range(images))
    assert all(0 < stop - start <= chunk_size for start, stop in spans(images, chunk_size))


def test_chunks_that_have_changed_places_are_not_there(tmp_path: Path) -> None:
    """Two files of one run, both whole and of the same size, swapped by hand or by a sync."""
    store = _store(tmp_path)
    for index, distance in enumerate((0.25, 0.5)):
        store.save(index, _chunk([distance]))
    first, second = (store.finished / f"{index:06d}.json" for index in range(2))
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)
    assert [store.load(index, 1) for index in range(2)] == [None, None]
    first.write_bytes(one)
    assert _equal(store.load(0, 1), _chunk([0.25]))


OTHERS: dict[str, object] = {
    "model": "m:other", "criterion": "below_chance", "attack": "paper", "effort": "fast", "norm": "l2",
    "bounds": (0.0, 1.0), "chunk_size": 8, "resize": 40, "crop": 16, "mean": (0.5,), "std": (0.5,),
}  # fmt: skip
UNIMPORTANT: dict[str, object] = {
    "data": Path("elsewhere"), "output": Path("there"), "weights": Path("w.pt"), "chance": "majority", "device": "cpu",
    "doubts": "off", "restart": True, "timeout": 9.0, "threads": 2, "limit": 5, "class_index": Path("index.json"),
}  # fmt: skip


@pytest.mark.parametrize("name", [field.name for field in fields(AraSettings)])
def test_what_distances_depend_on_makes_another_run(name: str) -> None:
    """Resuming with another of these settings would mix figures; the caller adds what data and weights are."""
    base = AraSettings(model="m:n", data=Path("d"), output=Path("o"), resize=32, crop=24, mean=(0.0,), std=(1.0,))
    others: Any = {name: {**OTHERS, **UNIMPORTANT}[name]}
    changed = replace(base, **others)
    assert (fingerprint(base.identity()) != fingerprint(changed.identity())) == (name in OTHERS)


@given(distances=st.lists(SIZES, min_size=1, max_size=8))
def test_a_chunk_reads_back_to_the_bit(tmp_path_factory: pytest.TempPathFactory, distances: list[float]) -> None:
    store, chunk = _store(tmp_path_factory.mktemp("out")), _chunk(distances)
    store.save(3, chunk)
    assert _equal(store.load(3, len(distances)), chunk)
    assert store.load(2, len(distances)) is None
    assert store.load(3, len(distances) + 1) is None


@given(data=st.data())
def test_a_damaged_chunk_counts_as_absent(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    folder = tmp_path_factory.mktemp("out")
    store = _store(folder)
    store.save(0, _chunk([0.125, 3.5, math.inf]))
    path = folder / "chunks" / "000000.json"
    whole = path.read_bytes()
    if data.draw(st.booleans()):
        damaged = whole[: data.draw(st.integers(0, len(whole) - 2))]
    else:
        place = data.draw(st.integers(0, len(whole) - 2))
        damaged = whole[:place] + bytes([whole[place] ^ data.draw(st.integers(1, 255))]) + whole[place + 1 :]
    path.write_bytes(damaged)
    found = store.load(0, 3)  # a changed space between entries changes nothing
    assert found is None or _equal(found, _chunk([0.125, 3.5, math.inf]))


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    store = _store(tmp_path, norm="l2")
    store.save(0, _chunk([1.0]))
    with pytest.raises(InvalidInputError, match=r"output: .* other settings: norm \(l2, now linf\)\. .*--restart"):
        _store(tmp_path, norm="linf")
    with pytest.raises(InvalidInputError, match=r"seed \(not set, now 3\)"):
        _store(tmp_path, norm="l2", seed=3)
    other = ChunkStore(tmp_path, {"model": "a", "norm": "linf"})
    assert other.load(0, 1) is None  # also where the refusal was too late
    other.clear()
    other.claim()
    with pytest.raises(InvalidInputError, match="other settings"):
        store.save(1, _chunk([1.0]))  # a run that another one has displaced


def test_unreadable_settings_are_no_licence(tmp_path: Path) -> None:
    _store(tmp_path)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(InvalidInputError, match=r"settings\.json cannot be read .*--restart"):
        _store(tmp_path)


def test_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInputError, match="output: expected a folder that can be written to"):
        _store(tmp_path / "file")


def test_differences_and_fingerprints_agree() -> None:
    a = {"x": [1, 2], "y": None}
    assert differences(a, json.loads(json.dumps(a))) == []
    assert fingerprint(a) == fingerprint({"y": None, "x": [1, 2]})
    assert fingerprint(a) != fingerprint({"x": [1, 2], "y": 0})


def test_files_appear_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    assert create_whole(path, b"first")
    assert not create_whole(path, b"second")
    write_whole(path, b"third")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, b"fourth")
    assert path.read_bytes() == b"third"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_file_systems_without_hard_links(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", unsupported)
    assert create_whole(tmp_path / "f", b"first")
    assert not create_whole(tmp_path / "f", b"second")
    assert (tmp_path / "f").read_bytes() == b"first"


def test_only_old_leftovers_are_removed(tmp_path: Path) -> None:
    for name in (".a.json.1.part", ".b.json.2.part", "c.json"):
        (tmp_path / name).write_text("")
    long_ago = time.time() - 7200
    os.utime(tmp_path / ".a.json.1.part", (long_ago, long_ago))
    os.utime(tmp_path / "c.json", (long_ago, long_ago))
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == [".b.json.2.part", "c.json"]
