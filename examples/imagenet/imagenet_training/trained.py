"""A finished run's network: for measuring, explaining, or anything else."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

from torch import nn

from captum_lipschitz._reading import read_json
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.measure.weights import load_weights, read_weights
from imagenet_training.network import build_network
from imagenet_training.recipe import Recipe, recipe_of

_FOLDER = "CAPTUM_LIPSCHITZ_IMAGENET_RUN"


@dataclasses.dataclass(frozen=True)
class FinishedRun:
    """What a run's folder holds: the recipe, the class folders in the order of the logits, the weights' file."""

    folder: Path
    recipe: Recipe
    classes: list[str]

    @property
    def weights(self) -> Path:
        """Torchvision's names, safetensors."""
        return self.folder / "weights.safetensors"

    def network(self) -> nn.Module:
        """The trained network, of images in [0, 1], in evaluation mode."""
        network = _untrained(self)
        load_weights(network.model, read_weights(self.weights), self.weights)
        ready: nn.Module = network.eval().requires_grad_(requires_grad=False)
        return ready


def read_run(folder: Path) -> FinishedRun:
    """Read a run's folder.

    Raises:
        InvalidInputError: it is none, or the run did not end.
    """
    try:
        content = read_json(folder / "recipe.json")
        run = FinishedRun(folder, recipe_of(content["recipe"]), content["classes"])
        if not isinstance(run.classes, list) or not all(isinstance(name, str) for name in run.classes):
            raise ValueError("classes: expected a list of names")  # noqa: TRY301 - as what it is tried with
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise InvalidInputError(f"run: expected the output folder of train.py, got {folder} ({error})") from error
    if not run.weights.is_file():
        raise InvalidInputError(f"run: expected one that has ended, got {folder} without {run.weights.name}")
    return run


def chosen_architecture() -> Any:
    """The untrained network of the run named by ``choose``, without its normalisation: what ``run_ara`` is given."""
    return _untrained(read_run(Path(os.environ[_FOLDER]))).model


def choose(run: FinishedRun) -> str:
    """Name the run that ``chosen_architecture`` builds, and return where ``run_ara`` finds it."""
    os.environ[_FOLDER] = str(run.folder)
    return f"{__name__}:{chosen_architecture.__name__}"


def _untrained(run: FinishedRun) -> Any:
    """With its final activations: those that grew round in fine-tuning have arrived."""
    recipe = dataclasses.replace(run.recipe, weights=None, rounding_epochs=0.0)
    if run.recipe.rounding_epochs:
        recipe = dataclasses.replace(recipe, activation="half_huber")
    return build_network(recipe, len(run.classes))
