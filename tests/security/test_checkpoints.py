"""Checkpoints of examples/imagenet: no pickle in them, and those that somebody changed are refused by name."""

from __future__ import annotations

import json
import pickle
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import ENDLESS, Payload, damaged, endless, payload_works, tuples_within_tuples, with_member, within
from image_folders import IMAGENET
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'captum-lipschitz[imagenet]'")
pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'captum-lipschitz[imagenet]'")
sys.path.insert(0, str(IMAGENET))

from imagenet_training.index import INDEX, IndexedReader, IndexedWriter

pytestmark = pytest.mark.filterwarnings(  # each torch has its own
    "ignore:torch.distributed is ", "ignore:TypedStorage is deprecated", "ignore:Detected pickle protocol"
)
REFUSED = (OSError, ValueError, CheckpointException)


def _state(fill: float = 0.0) -> dict[str, Any]:
    network = nn.Linear(3, 2)
    nn.init.constant_(network.weight, fill)
    return {"network": network.state_dict(), "generator": torch.Generator().manual_seed(3).get_state()}


def _load(folder: Path) -> dict[str, Any]:
    state = _state()
    load(state, storage_reader=IndexedReader(folder))
    return state


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    save(_state(0.5), storage_writer=IndexedWriter(folder))
    return folder


def test_nothing_in_a_checkpoint_is_a_pickle_of_torchs_own(checkpoint: Path) -> None:
    assert sorted(path.name for path in checkpoint.iterdir()) == ["__0_0.distcp", INDEX]
    assert json.loads((checkpoint / INDEX).read_text())["tensors"]["network.weight"]["size"] == [2, 3]
    loaded = _load(checkpoint)
    assert loaded["network"]["weight"].tolist() == [[0.5] * 3] * 2
    assert torch.equal(loaded["generator"], _state()["generator"])


def test_what_is_no_tensor_is_not_kept_as_a_pickle(tmp_path: Path) -> None:
    state = {**_state(), "epoch": 3}
    with pytest.raises(CheckpointException, match=r"expected tensors alone .* something else for epoch"):
        save(state, storage_writer=IndexedWriter(tmp_path))
    assert not (tmp_path / INDEX).exists()


def test_torchs_own_index_is_not_unpickled(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / ".metadata").write_bytes(pickle.dumps(Payload(tmp_path / "made")))
    assert _load(checkpoint)["network"]["weight"].tolist() == [[0.5] * 3] * 2
    (checkpoint / INDEX).unlink()
    with pytest.raises(REFUSED):
        _load(checkpoint)
    assert not (tmp_path / "made").exists()
    assert payload_works(tmp_path)


def _replace_tensors(checkpoint: Path, content: bytes) -> None:
    index = json.loads((checkpoint / INDEX).read_text())
    for place in index["places"]:
        place.update(offset=0, length=len(content))
    (checkpoint / INDEX).write_text(json.dumps(index))
    (checkpoint / "__0_0.distcp").write_bytes(content)


def test_tensors_are_never_code(checkpoint: Path, tmp_path: Path) -> None:
    torch.save(torch.zeros(2), tmp_path / "w.pt")
    evil = pickle.dumps(Payload(tmp_path / "made"))
    for content in (evil, with_member((tmp_path / "w.pt").read_bytes(), "data.pkl", evil), tuples_within_tuples(26)):
        _replace_tensors(checkpoint, content)
        with within(60), pytest.raises(REFUSED):
            _load(checkpoint)
    assert not (tmp_path / "made").exists()


def test_damaged_checkpoints_are_read_or_refused(checkpoint: Path, tmp_path: Path) -> None:
    for name in (INDEX, "__0_0.distcp"):
        whole = (checkpoint / name).read_bytes()
        for content in damaged(whole, each=6):
            (checkpoint / name).write_bytes(content)
            try:
                with within(60):
                    _load(checkpoint)
            except REFUSED as error:
                assert str(error)  # noqa: PT017 - or it was read
        (checkpoint / name).write_bytes(whole)
    assert _load(checkpoint)


CHANGES: dict[str, Callable[[Any], Any]] = {
    "another folder": lambda index: index["places"][0].update(file="../secret"),
    "absolute": lambda index: index["places"][0].update(file="/dev/zero"),
    "no name": lambda index: index["places"][0].update(file=3),
    "negative": lambda index: index["places"][0].update(offset=-1),
    "beyond": lambda index: index["places"][0].update(offset=2**62),
    "long": lambda index: index["places"][0].update(length=2**62, offset=3),
    "size": lambda index: index["tensors"]["network.weight"].update(size=[2**40, 2**40]),
    "size, no list": lambda index: index["tensors"]["network.weight"].update(size="23"),
    "dtype": lambda index: index["tensors"]["network.weight"].update(dtype="os.system"),
    "chunks": lambda index: index["tensors"]["network.weight"].update(chunks=3),
    "missing": lambda index: index["tensors"].pop("network.weight"),
    "places": lambda index: index.update(places={}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_index_that_lies_is_refused(name: str, checkpoint: Path) -> None:
    index = json.loads((checkpoint / INDEX).read_text())
    CHANGES[name](index)
    (checkpoint / INDEX).write_text(json.dumps(index))
    shutil.copy(checkpoint / "__0_0.distcp", checkpoint.parent / "secret")
    with within(60), pytest.raises(REFUSED):
        _load(checkpoint)


@ENDLESS
def test_what_is_no_file_is_not_waited_for(kind: str, checkpoint: Path) -> None:
    for name in ("__0_0.distcp", INDEX):
        (checkpoint / name).unlink()
        endless(checkpoint / name, kind)
        with within(20), pytest.raises(REFUSED):
            _load(checkpoint)
