"""Weights that are damaged, hostile or of any size: an error that names the file, nothing run, nothing waited for."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from pathlib import Path

import pytest
import torch
from hostile import ENDLESS, Payload, damaged, endless, payload_works, tuples_within_tuples, with_member, within
from safetensors.torch import save
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.weights import load_weights, read_weights
from captum_lipschitz.models import PreActResNet44

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:Validating sparse tensor")


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def _saved(content: object, *, zipped: bool = True) -> bytes:
    written = io.BytesIO()
    torch.save(content, written, _use_new_zipfile_serialization=zipped)
    return written.getvalue()


FILES = {
    "w.pt": lambda: _saved(_network().state_dict()),
    "old.pt": lambda: _saved(_network().state_dict(), zipped=False),
    "checkpoint.pth": lambda: _saved({"state_dict": _network().state_dict(), "epoch": 3, "betas": (0.9, 0.999)}),
    "w.safetensors": lambda: save(_network().state_dict()),
}


@pytest.mark.parametrize("name", FILES)
def test_damaged_weights_are_read_or_refused_by_name(name: str, tmp_path: Path) -> None:
    path, refused = tmp_path / name, 0
    for content in damaged(FILES[name]()):
        path.write_bytes(content)
        try:
            with within(60):
                load_weights(_network(), read_weights(path), path)
        except InvalidInputError as error:
            refused += 1
            assert name in str(error)  # noqa: PT017 - most are refused, and some are whole
    assert refused


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", ["bare", "in a zip", "in safetensors"])
def test_pickles_are_never_run(kind: str, protocol: int, tmp_path: Path) -> None:
    made, evil = tmp_path / "made", pickle.dumps({"a": Payload(tmp_path / "made")}, protocol)
    path = tmp_path / ("w.safetensors" if kind == "in safetensors" else "w.pt")
    path.write_bytes(with_member(FILES["w.pt"](), "data.pkl", evil) if kind == "in a zip" else evil)
    with pytest.raises(InvalidInputError, match=r"weights: .*w\.(pt|safetensors)"):
        read_weights(path)
    assert not made.exists()
    assert payload_works(tmp_path)


@pytest.mark.parametrize("old", [False, True])
def test_keys_that_take_years_to_hash_are_refused(tmp_path: Path, *, old: bool) -> None:
    path = tmp_path / "w.pt"
    key = tuples_within_tuples(26)  # four more levels, and a reader that hashes it is not back within a minute
    path.write_bytes(key if old else with_member(FILES["w.pt"](), "data.pkl", key))
    with within(60), pytest.raises(InvalidInputError, match=r"w\.pt is not read .*used again and again"):
        read_weights(path)


def test_parts_that_are_compressed_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    packed = with_member(FILES["w.pt"](), "data/0", bytes(10_000_000), compression=zipfile.ZIP_DEFLATED)
    assert len(packed) < 20_000
    path.write_bytes(packed)
    with pytest.raises(InvalidInputError, match=r"w\.pt is not read .*compressed"):
        read_weights(path)


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(2**40),
        torch.zeros(3, 4, device="meta"),
        torch.eye(3).to_sparse(),
    ],
    ids=["one number, repeated", "no numbers", "sparse"],
)
def test_tensors_of_which_the_file_has_no_numbers_are_refused(tensor: Tensor, tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(_saved({"0.weight": tensor}))
    with pytest.raises(InvalidInputError, match=r"dense tensors in .*w\.pt.*other ones: 0\.weight"):
        read_weights(path)


@pytest.mark.parametrize(
    "content",
    [
        struct.pack("<Q", 2**60) + b"{}",
        struct.pack("<Q", 80) + b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4]}}'.ljust(84, b" "),
        struct.pack("<Q", 80) + b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4000000000]}}'.ljust(80) + bytes(4),
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        struct.pack("<Q", 2) + b"\xff\xfe",
    ],
    ids=["header", "shape", "offsets", "depth", "no UTF-8"],
)
def test_safetensors_that_claim_what_they_have_not(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    for read in (read_weights, PreActResNet44.from_safetensors):
        with within(60), pytest.raises(InvalidInputError, match=r"w\.safetensors cannot be read as safetensors"):
            read(path)


@ENDLESS
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_what_is_no_file_is_not_waited_for(kind: str, name: str, tmp_path: Path) -> None:
    path = endless(tmp_path / name, kind)
    for read in (read_weights, PreActResNet44.from_safetensors):
        with within(20), pytest.raises(InvalidInputError, match=name):
            read(path)


def test_a_network_of_other_shapes_is_refused(tmp_path: Path) -> None:
    for bias in (torch.zeros(()), torch.zeros(0), torch.zeros(2, 2)):
        (tmp_path / "w.safetensors").write_bytes(save({"pipe.7.bias": bias}))
        with pytest.raises(InvalidInputError, match="does not hold a PreActResNet44"):
            PreActResNet44.from_safetensors(tmp_path / "w.safetensors")
