"""Weights: every usual file, names that do not match, and files that would run code."""

from __future__ import annotations

import os
import pickle
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.measure.weights import load_weights, read_weights, without_prefix


def _network() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Linear(3, 2))


def _same(model: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": torch.tensor(0.5)},
        lambda state: {"model": state, "optimizer": {"lr": 0.1}},
        lambda state: {"model": {"state_dict": {f"module.{k}": v for k, v in state.items()}}},
        lambda state: {f"_orig_mod.module.{k}": v for k, v in state.items()},
        lambda state: {"state_dict": {f"model.{k}": v for k, v in state.items()}},
    ],
    ids=["plain", "state_dict", "model", "parallel", "compiled", "lightning"],
)
def test_usual_checkpoints_load(tmp_path: Path, wrap: Any) -> None:
    saved, loaded = _network(), _network()
    path = tmp_path / "w.pt"
    torch.save(wrap(saved.state_dict()), path)
    load_weights(loaded, read_weights(path), path)
    assert _same(saved, loaded)


def test_half_precision_becomes_the_models_own(tmp_path: Path) -> None:
    saved, loaded, path = _network(), _network(), tmp_path / "w.safetensors"
    save_file({k: v.half() if v.is_floating_point() else v for k, v in saved.state_dict().items()}, path)
    load_weights(loaded, read_weights(path), path)
    assert loaded[0].weight.dtype == torch.float32
    assert torch.equal(loaded[0].weight, saved[0].weight.half().float())


def test_a_prefix_that_the_model_has_itself_stays() -> None:
    state = {"model.weight": torch.zeros(1)}
    assert list(without_prefix(state, {"model.weight"})) == ["model.weight"]


class _Payload:
    """Unpickling this creates a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch, of a file it then refuses
@pytest.mark.parametrize("kind", ["torch", "legacy", "pickle", "named safetensors"])
def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path: Path, kind: str) -> None:
    victim, path = tmp_path / "created", tmp_path / "evil.pt"
    content = {"weight": torch.zeros(2), "payload": _Payload(victim)}
    if kind == "pickle":
        path.write_bytes(pickle.dumps(content))
    elif kind == "named safetensors":
        path = tmp_path / "evil.safetensors"
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "torch")
    expected = (
        "cannot be read as safetensors" if kind == "named safetensors" else "runs code .* was not read.*save_file"
    )
    with pytest.raises(InvalidInputError, match=expected):
        read_weights(path)
    assert not victim.exists()
    pickle.loads(pickle.dumps(_Payload(victim)))  # noqa: S301 - the payload is a real one
    assert victim.exists()


def test_a_whole_model_is_refused_with_the_way_out(tmp_path: Path) -> None:
    saved, path = _network(), tmp_path / "it's a $model.pt"
    torch.save(saved, path)
    with pytest.raises(
        InvalidInputError, match=r"weights: .*model\.pt holds objects besides tensors .*convert it once"
    ) as refused:
        read_weights(path)
    command = shlex.split(str(refused.value).partition("to tensors: ")[2])
    assert command[0] == "python"
    subprocess.run([sys.executable, *command[1:]], cwd=tmp_path, check=True, timeout=120)
    loaded = _network()
    load_weights(loaded, read_weights(tmp_path / "weights.safetensors"), path)
    assert _same(saved, loaded)


def test_wrappings_without_end_are_refused(tmp_path: Path) -> None:
    endless: dict[str, object] = {}
    endless["model"] = endless
    torch.save(endless, tmp_path / "w.pt")
    with pytest.raises(InvalidInputError, match=r"weights: expected a state dict in .*w\.pt within at most 4 of"):
        read_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 not really", b"\x80\x02 neither"])
@pytest.mark.parametrize("name", ["w.pt", "w.safetensors"])
def test_damaged_files_are_named(tmp_path: Path, content: bytes, name: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=f"weights: .*{name}"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "expected a state dict .* got an empty one"),
        ([torch.zeros(1)], "got list"),
        ({"a": 1, "b": 2, "c": 3, "d": 4}, "other things: a, b, c and 1 more"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(InvalidInputError, match=message):
        read_weights(tmp_path / "w.pt")


def test_names_and_shapes_must_match() -> None:
    state = dict(_network().state_dict())
    extra = {**state, "head.weight": torch.zeros(1)}
    del extra["2.bias"]
    with pytest.raises(InvalidInputError, match=r"w\.pt .* missing: 2\.bias; unexpected: head\.weight"):
        load_weights(_network(), extra, Path("w.pt"))
    with pytest.raises(InvalidInputError, match=r"other shapes: 2.bias \(5,\) instead of \(2,\)"):
        load_weights(_network(), {**state, "2.bias": torch.zeros(5)}, Path("w.pt"))
    with pytest.raises(InvalidTypeError, match=r"weights: expected a torch\.nn\.Module .* got function"):
        load_weights(lambda images: images, state, Path("w.pt"))
    with pytest.raises(InvalidInputError, match="weights: expected a file"):
        read_weights(Path("absent.pt"))


def test_a_model_that_asks_for_the_version_of_its_form(tmp_path: Path) -> None:
    models = pytest.importorskip("torchvision.models", reason="torchvision is not installed: pip install torchvision")
    source, target = models.mnasnet0_5(num_classes=3), models.mnasnet0_5(num_classes=3)
    path = tmp_path / "mnasnet.safetensors"
    save_file(source.state_dict(), path)
    load_weights(target, read_weights(path), path)
    assert target.classifier[1].weight.equal(source.classifier[1].weight)
