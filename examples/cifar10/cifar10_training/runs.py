"""Folders of finished runs: a network, its recipe, and what was measured."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn

from captum_lipschitz._files import write_whole
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.weights import load_weights, read_weights
from cifar10_training.network import build_network
from cifar10_training.recipe import Recipe
from cifar10_training.training import Trained

_WEIGHTS, _RESULTS = "weights.safetensors", "results.json"
_PACKAGES = ("captum-lipschitz", "torch", "torchvision", "numpy")


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: what it is compared under, such as ``"robust"``.
        recipe: what was trained.
        seed: of the training.
        training: seconds, steps, last loss and strength; see ``Trained``.
        figures: what was measured; see ``Instrument.measure``.
        machine: hardware and versions.
    """

    name: str
    recipe: Recipe
    seed: int
    training: dict[str, Any]
    figures: dict[str, Any]
    machine: dict[str, Any]


def save_network(folder: Path, name: str, recipe: Recipe, seed: int, trained: Trained) -> None:
    """Write the weights, and the results as far as they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    device = next(trained.network.parameters()).device
    state = {key: value.detach().cpu().contiguous() for key, value in trained.network.state_dict().items()}
    write_whole(folder / _WEIGHTS, save(state))
    _write(folder, Run(name, recipe, seed, trained.to_dict(), {}, machine(device)))


def save_figures(folder: Path, figures: dict[str, Any]) -> Run:
    """Add what was measured to a run's results."""
    run = read_run(folder)
    run.figures.update(figures)
    _write(folder, run)
    return run


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        content = json.loads((folder / _RESULTS).read_text(encoding="utf-8"))
        recipe = Recipe().changed(**content.pop("recipe"))
        return Run(recipe=recipe, **content)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"run: expected a folder that reproduce.py wrote, got {folder} ({error})") from error


def read_network(folder: Path) -> nn.Module:
    """A run's network, on the CPU, in evaluation mode."""
    run = read_run(folder)
    network = build_network(run.recipe, seed=run.seed)
    load_weights(network, read_weights(folder / _WEIGHTS), folder / _WEIGHTS)
    return network.eval().requires_grad_(requires_grad=False)


def is_trained(folder: Path) -> bool:
    """Whether a run's network is there."""
    return (folder / _RESULTS).is_file() and (folder / _WEIGHTS).is_file()


def machine(device: torch.device) -> dict[str, Any]:
    """What figures depend on besides the recipe: processor, threads, versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "device": device.type,
        "processor": name,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "versions": {package: _version(package) for package in _PACKAGES},
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    """The CPU's name, as Linux tells it, or what Python knows."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _write(folder: Path, run: Run) -> None:
    content = {**vars(run), "recipe": run.recipe.to_dict()}
    write_whole(folder / _RESULTS, json.dumps(content, indent=1).encode())
