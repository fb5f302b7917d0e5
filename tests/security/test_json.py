"""JSON of others, and what a partial run left: refused or done again, whatever was made of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import ENDLESS, damaged, endless, within
from hypothesis import given
from hypothesis import strategies as st

from captum_lipschitz._reading import one_line, parse_json, read_json, read_regular
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure import chunks
from captum_lipschitz.measure.chunks import Chunk, ChunkStore
from captum_lipschitz.measure.folder import read_class_index
from captum_lipschitz.metrics.measurement import Part
from captum_lipschitz.report import store as steps
from captum_lipschitz.report.names import class_names
from captum_lipschitz.report.store import Step, StepStore

HOSTILE = [
    b"", b"{", b"\xff\xfe{}", b"NaN", b'{"a": Infinity}', b'{"a": 1e999}', b'{"a": 1, "a": 2}', b"[" * 1_000_000,
    b'{"a":' * 200_000, b'{"a": ' + b"9" * 1_000_000 + b"}", b'"' + b"a" * 1_000_000, b"\x00" * 1000, b"{}{}",
]  # fmt: skip
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(value=JSON)
def test_json_reads_back_as_written(value: Any) -> None:
    assert parse_json(json.dumps(value).encode()) == value


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_json_that_the_standard_has_not_is_refused(content: bytes) -> None:
    with within(60), pytest.raises(ValueError, match=r".") as refused:
        parse_json(content)
    assert len(str(refused.value)) < 1000


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_class_index_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    path.write_bytes(content)
    with within(60), pytest.raises(InvalidInputError, match=r"class_index: .*index\.json"):
        read_class_index(path)
    with within(60), pytest.raises(InvalidInputError, match=r"class_names: .*index\.json"):
        class_names([str(path)], 3)


@given(content=JSON)
def test_any_json_is_a_class_index_or_refused(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("index") / "index.json"
    path.write_text(json.dumps(content))
    try:
        found = read_class_index(path)
    except InvalidInputError as error:
        assert "index.json" in str(error)  # noqa: PT017 - or it was read
    else:
        assert all(isinstance(name, str) and 0 <= number < 2**31 for name, number in found.items())


def test_damaged_class_indices_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    for content in damaged(b'{"n01440764": [0, "tench"], "n01443537": [1, "goldfish"]}', each=20):
        path.write_bytes(content)
        try:
            assert read_class_index(path)
        except InvalidInputError as error:
            assert "index.json" in str(error)  # noqa: PT017


@ENDLESS
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = endless(tmp_path / "index.json", kind)
    for read in (read_json, read_regular):
        with within(20), pytest.raises(OSError, match=r"index\.json"):
            read(path)
    with within(20), pytest.raises(InvalidInputError, match=r"index\.json"):
        read_class_index(path)


def test_files_too_long_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "long.json"
    with path.open("wb") as file:
        file.truncate(2**40)  # takes no room on the disk
    with pytest.raises(OSError, match="Expected at most 268435456 bytes, got 1099511627776"):
        read_json(path)


def test_names_cannot_write_on_the_terminal() -> None:
    assert one_line("a\nb\r\x1b[2J\u202ec\udcff") == "a\\nb\\r\\x1b[2J\\u202ec\\udcff"
    assert one_line("Größe: 3 µm") == "Größe: 3 µm"


def _chunk() -> Chunk:
    part = Part(
        distances=torch.tensor([0.5, torch.inf], dtype=torch.float64),
        labels=torch.tensor([0, 1]),
        correct=torch.tensor([True, False]),
        gradient_evaluations=torch.tensor([3, 4]),
        num_classes=2,
    )
    return Chunk(part, 1.0)


@pytest.fixture
def chunk_store(tmp_path: Path) -> ChunkStore:
    store = ChunkStore(tmp_path, {"model": "a"})
    store.claim()
    store.save(0, _chunk())
    return store


@pytest.mark.parametrize(
    "change",
    [
        lambda part: part.pop("labels"),
        lambda part: part.update(distances=["a", "b"]),
        lambda part: part.update(distances=None),
        lambda part: part.update(distances="ab"),
        lambda part: part["distances"].update(values=[-1.0, 2.0]),
        lambda part: part["distances"].update(values=[[0.5], [0.5]]),
        lambda part: part["distances"].update(values=0.5),
        lambda part: part["distances"].update(values={"a": 1, "b": 2}),
        lambda part: part["labels"].update(values=[0, 10**30]),
        lambda part: part["labels"].update(values=[0, 2]),
        lambda part: part["labels"].update(dtype="bool"),
        lambda part: part.update(num_classes="2"),
        lambda part: part.update(num_classes=[2]),
        lambda part: part.update(extra=3),
    ],
)
def test_chunks_that_say_something_else_are_done_again(chunk_store: ChunkStore, change: Callable[[Any], Any]) -> None:
    path = chunk_store.finished / "000000.json"
    content = json.loads(path.read_bytes())
    assert chunk_store.load(0, 2) is not None
    del content["checksum"]
    change(content["part"])
    path.write_text(json.dumps({**content, "checksum": chunks._checksum(content)}))  # as whoever knows how could
    assert chunk_store.load(0, 2) is None


@pytest.mark.parametrize("content", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_files_of_a_partial_run_count_as_not_there(content: bytes, chunk_store: ChunkStore) -> None:
    (chunk_store.finished / "000000.json").write_bytes(content)
    own = StepStore(chunk_store.finished.parent, {"model": "a"})
    own.claim()
    for header in (content, content + b"\n"):
        (own.finished / "a.step").write_bytes(header)
        with within(60):
            assert own.load("a") is None
            assert chunk_store.load(0, 2) is None
    (chunk_store.finished.parent / "settings.json").write_bytes(content)
    with within(60), pytest.raises(InvalidInputError, match=r"output: .*settings\.json cannot be read .*--restart"):
        chunk_store.check()


@ENDLESS
def test_a_partial_run_is_not_waited_for(kind: str, chunk_store: ChunkStore) -> None:
    (chunk_store.finished / "000000.json").unlink()
    endless(chunk_store.finished / "000000.json", kind)
    (chunk_store.finished.parent / "settings.json").unlink()
    endless(chunk_store.finished.parent / "settings.json", kind)
    with within(20):
        assert chunk_store.load(0, 2) is None
    with within(20), pytest.raises(InvalidInputError, match=r"settings\.json cannot be read"):
        chunk_store.check()


def test_another_runs_settings_are_told_in_brief(tmp_path: Path) -> None:
    store = ChunkStore(tmp_path, {"model": "a"})
    store.claim()
    for value in ("m" * 100_000, json.loads("[" * 400 + "]" * 400), [0] * 100_000):
        (tmp_path / "settings.json").write_text(json.dumps({"model": value}))
        with pytest.raises(InvalidInputError, match="other settings: model") as refused:
            store.check()
        assert len(str(refused.value)) < 2000


def test_damaged_steps_count_as_not_there(tmp_path: Path) -> None:
    store = StepStore(tmp_path, {"model": "a"})
    store.claim()
    step = Step(values={"distances": torch.ones(3)}, notes={"left_out": {"road": "why"}}, seconds=1.0)
    store.save("a", step)
    whole = (store.finished / "a.step").read_bytes()
    for content in damaged(whole, each=20):
        (store.finished / "a.step").write_bytes(content)
        found = store.load("a")
        assert found is None or content == whole or found == replace(step, values=found.values)


def test_steps_with_tensors_that_are_none_count_as_not_there(tmp_path: Path) -> None:
    store = StepStore(tmp_path, {"model": "a"})
    store.claim()
    for payload in (b"", b"\xff" * 8, (2**60).to_bytes(8, "little") + b"{}"):
        content = {"step": "a", "identity": store.fingerprint, "notes": {}, "seconds": 1.0}
        header = json.dumps({**content, "checksum": steps._checksum(content, payload)}).encode()
        (store.finished / "a.step").write_bytes(header + b"\n" + payload)
        assert store.load("a") is None
