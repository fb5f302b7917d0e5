"""Folders of finished runs: a network, its recipe, and what was measured."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch import nn

from captum_lipschitz._files import write_whole
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.weights import load_weights, read_weights
from cifar10_training.files import read_results
from cifar10_training.images import Images
from cifar10_training.machine import machine
from cifar10_training.network import build_network
from cifar10_training.recipe import Recipe
from cifar10_training.training import Trained, Training

_WEIGHTS, _RESULTS = "weights.safetensors", "results.json"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        name: what it is compared under, such as ``"robust"``.
        recipe: what was trained.
        seed: of the training.
        training: seconds, steps, last loss and strength; see ``Trained``.
        figures: what was measured; see ``Instrument.measure``.
        machine: hardware and versions of the training.
        data: what tells the images from others, see ``Images.digests``.
    """

    name: str
    recipe: Recipe
    seed: int
    training: dict[str, Any]
    figures: dict[str, Any]
    machine: dict[str, Any]
    data: dict[str, str]

    def check(self, recipe: Recipe, seed: int, images: Images) -> None:
        """Raise ``InvalidInputError`` unless this run is of that recipe, seed and images."""
        expected = {"recipe": recipe, "seed": seed, "images": images.digests()}
        for what, found in (("recipe", self.recipe), ("seed", self.seed), ("images", self.data)):
            if found != expected[what]:
                raise InvalidInputError(f"output: expected a folder of its own for this run, got one of another {what}")


def save_network(folder: Path, name: str, training: Training, trained: Trained, images: Images) -> None:
    """Write the weights, and the results as far as they are known."""
    folder.mkdir(parents=True, exist_ok=True)
    device = next(trained.network.parameters()).device
    state = {key: value.detach().cpu().contiguous() for key, value in trained.network.state_dict().items()}
    write_whole(folder / _WEIGHTS, save(state))
    run = Run(name, training.recipe, training.seed, trained.to_dict(), {}, machine(device), images.digests())
    _write(folder, run)


def save_figures(folder: Path, figures: dict[str, Any]) -> Run:
    """Put what was measured in the place of what a run's results hold."""
    run = dataclasses.replace(read_run(folder), figures=figures)
    _write(folder, run)
    return run


def read_run(folder: Path) -> Run:
    """Read a run's folder.

    Raises:
        InvalidInputError: it is none.
    """
    try:
        content = read_results(folder / _RESULTS)
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


def _write(folder: Path, run: Run) -> None:
    content = {**vars(run), "recipe": run.recipe.to_dict()}
    write_whole(folder / _RESULTS, json.dumps(content, indent=1).encode())
