"""Checkpoints that are whole or not there, by torch.distributed.checkpoint: they fit any number of processes."""

from __future__ import annotations

import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save

from captum_lipschitz._reading import read_json
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError
from imagenet_training.index import IndexedReader, IndexedWriter
from imagenet_training.recipe import as_entries
from imagenet_training.training import Training

_PROGRESS = "progress.json"
_DAMAGED = (OSError, LookupError, ValueError, TypeError, AttributeError, RuntimeError)  # what such a file leads to
_MAY_CHANGE = ("compile", "sharding", "channels_last")  # of which a run may go on with others


class CheckpointError(CaptumLipschitzError):
    """A checkpoint cannot be written or read; those before it are as they were."""


class Checkpoints:
    """The folders ``step-00001000`` of a run.

    All tensors are written by torch.distributed.checkpoint into a folder of another name, which is then renamed: what
    has its own name is whole. Numbers, and what lies where, are JSON beside them; nothing that would run is read.

    Args:
        folder: of the run.
        data: what is trained on, by what it is: a run may go on with nothing else. JSON's types.
        keep: how many of the last ones stay.
    """

    def __init__(self, folder: Path, *, data: Mapping[str, Any], keep: int = 2) -> None:
        self._folder, self._data, self._keep = folder / "checkpoints", dict(data), keep

    def found(self) -> list[Path]:
        """The whole ones, the last at the end."""
        return sorted(path for path in self._folder.glob("step-*") if (path / _PROGRESS).is_file())

    def save(self, training: Training) -> Path:
        """Write the state of all processes, which must all call.

        Raises:
            CheckpointError: the disk is full, or gone.
        """
        final = self._folder / f"step-{training.step:08d}"
        unfinished = self._folder / f".{final.name}.part"
        first = training.processes.rank == 0
        try:
            if first:
                shutil.rmtree(unfinished, ignore_errors=True)
                unfinished.mkdir(parents=True)
            training.processes.meet()
            training.share_buffers()
            with _ignored_warnings():
                save(_tensors(training), storage_writer=IndexedWriter(unfinished))
            if first:
                _write(unfinished / _PROGRESS, {**_numbers(training), "data": self._data})
                shutil.rmtree(final, ignore_errors=True)  # of a run that went back behind it
                os.replace(unfinished, final)  # noqa: PTH105 - atomic, and says so
                _sync(self._folder)
                self._forget(final)
        except (OSError, CheckpointException) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            last = self.found()
            kept = f"the last good one is {last[-1].name}" if last else "there is none before it"
            raise CheckpointError(f"checkpoint {final.name} cannot be written ({_reason(error)}); {kept}") from error
        training.processes.meet()
        return final

    def restore(self, training: Training) -> str | None:
        """Go on from the last one; what is different now, in words, or ``None`` where there is no checkpoint.

        Raises:
            InvalidInputError: it is another recipe's, or of other data.
            CheckpointError: it cannot be read.
        """
        found = training.processes.agree([path.name for path in self.found()][-1:])
        if not found:
            return None
        path = self._folder / found[0]
        try:
            numbers = _checked(read_json(path / _PROGRESS))
            said = _compared(numbers, training, self._data)
            _load(path, training)
            _take(numbers, training)
        except InvalidInputError:
            raise
        except (
            OSError,
            LookupError,
            ValueError,
            TypeError,
            AttributeError,
            RuntimeError,
            CheckpointException,
        ) as error:
            raise CheckpointError(
                f"checkpoint {path.name} cannot be read ({_reason(error)}); to go on from the one before, remove it"
            ) from error
        return f"going on from {path.name}" + said

    def _forget(self, newest: Path) -> None:
        for path in [other for other in self.found() if other <= newest][: -self._keep]:
            shutil.rmtree(path, ignore_errors=True)


def _checked(numbers: Any) -> dict[str, Any]:
    """What ``_numbers`` wrote, of the right kinds."""
    kinds = {"step": int, "processes": int, "classes": int, "recipe": dict, "regularizer": dict, "data": dict}
    wrong = [name for name, kind in kinds.items() if type(numbers[name]) is not kind]
    if wrong or numbers["step"] < 0 or not isinstance(numbers["rounding"], dict | None):
        raise ValueError(f"expected {_PROGRESS} as it was written, got another {(wrong or ['step or rounding'])[0]}")
    return dict(numbers)


def _tensors(training: Training) -> dict[str, Any]:
    """The network, the optimiser's averages, and what this process has for itself."""
    network, optimizer = get_state_dict(training.network, training.optimizer)
    return {"network": network, "optimizer": optimizer["state"], **_states(_generators(training))}


def _generators(training: Training) -> dict[str, torch.Generator]:
    """What this process draws from, by the name in the checkpoint."""
    owners = {"penalty": training.regularizer, "attack": training.adversary}
    rank = training.processes.rank
    return {f"generators.{rank}.{name}": owner.generator for name, owner in owners.items() if owner is not None}


def _numbers(training: Training) -> dict[str, Any]:
    regularizer = {} if training.regularizer is None else training.regularizer.state_dict()
    regularizer.pop("generator", None)
    return {
        "step": training.step,
        "processes": training.processes.size,
        "classes": training.classes,
        "recipe": as_entries(training.recipe),
        "regularizer": regularizer,
        "rounding": None if training.rounding is None else training.rounding.state_dict(),
    }


def _load(path: Path, training: Training) -> None:
    network, optimizer = get_state_dict(training.network, training.optimizer)
    known = IndexedReader(path).read_metadata().state_dict_metadata
    generators = {name: generator for name, generator in _generators(training).items() if name in known}
    state: dict[str, Any] = {"network": network, "optimizer": optimizer["state"], **_states(generators)}
    with _ignored_warnings():
        load(state, storage_reader=IndexedReader(path))
    set_state_dict(
        training.network,
        training.optimizer,
        model_state_dict=state["network"],
        optim_state_dict={"state": state["optimizer"], "param_groups": optimizer["param_groups"]},
    )
    for name, generator in generators.items():
        generator.set_state(state[name])


@contextmanager
def _ignored_warnings() -> Iterator[None]:
    """Torch warns of a single process, which is what was asked for; 2.6 also of what its own writer calls."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="TypedStorage is deprecated")
        warnings.filterwarnings("ignore", message=r"torch\.distributed is (disabled, )?unavailable or uninitialized")
        yield


def _states(generators: dict[str, torch.Generator]) -> dict[str, Tensor]:
    return {name: generator.get_state() for name, generator in generators.items()}


def _take(numbers: dict[str, Any], training: Training) -> None:
    training.step = numbers["step"]
    if training.regularizer is not None:
        own = training.regularizer.generator.get_state()  # loaded already
        training.regularizer.load_state_dict({**numbers["regularizer"], "generator": own})
    if training.rounding is not None and numbers["rounding"] is not None:
        training.rounding.load_state_dict(numbers["rounding"])


def _compared(numbers: dict[str, Any], training: Training, data: dict[str, Any]) -> str:
    before, now = numbers["recipe"], as_entries(training.recipe)
    differing = [name for name in now if before.get(name) != now[name]]
    refused = [f"{name} was {before.get(name)!r}, is {now[name]!r}" for name in differing if name not in _MAY_CHANGE]
    if numbers["classes"] != training.classes:
        refused.append(f"there were {numbers['classes']} classes, are {training.classes}")
    refused += [
        f"{name} was {numbers['data'][name]!r}, is {data[name]!r}"
        for name in data
        if numbers["data"][name] != data[name]
    ]
    if refused:
        raise InvalidInputError(
            f"--resume: expected the recipe and the data that the run was begun with; {'; '.join(refused)}"
        )
    said = [f"{name} was {before[name]!r}, is {now[name]!r} (results agree to rounding)" for name in differing]
    if numbers["processes"] != training.processes.size:
        said.append(
            f"{numbers['processes']} processes then, {training.processes.size} now: each step has the same images; "
            "BatchNorm sees shares of another size, and processes without a state of their own draw anew"
        )
    return "".join(f"; {text}" for text in said)


def _write(path: Path, content: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(content, file, indent=2)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _reason(error: BaseException) -> str:
    """The innermost reason, on one line."""
    failures = getattr(error, "failures", None)
    if failures:
        wrapped = next(iter(failures.values()))
        error = wrapped[0] if isinstance(wrapped, tuple) else wrapped
    return f"{type(error).__name__}: {error}".partition("\n")[0]
