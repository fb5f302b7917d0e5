"""The regularizer's state in the Trainer's checkpoint folders, a file for each process, as for its random states."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

import torch

from captum_lipschitz._files import write_whole
from captum_lipschitz._tensors import read_torch
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError
from captum_lipschitz.training import LipschitzRegularizer
from captum_lipschitz.training.processes import number_of_processes, process_rank

_NAME = "lipschitz_regularizer"


def save_state(regularizer: LipschitzRegularizer, folder: str | Path) -> None:
    """Write this process's state into a checkpoint folder."""
    content = io.BytesIO()
    torch.save(regularizer.state_dict(), content)
    Path(folder).mkdir(parents=True, exist_ok=True)
    write_whole(_own_file(Path(folder)), content.getvalue())


def load_state(regularizer: LipschitzRegularizer, folder: str | Path) -> bool:
    """Go on from a checkpoint folder, and say whether the generator is this process's own there.

    With another number of processes than the checkpoint had, this one has the controller's state and draws anew.
    A checkpoint of training without a penalty has none: there is a warning, and the strength starts as it was made.

    Raises:
        InvalidInputError: the file cannot be read, or the state is not a regularizer's.
    """
    own = _own_file(Path(folder))
    others = sorted(Path(folder).glob(f"{_NAME}*.pt"))
    if not own.exists() and not others:
        warnings.warn(
            f"resume_from_checkpoint: expected {own.name} in the checkpoint, which has none; the strength starts anew",
            CaptumLipschitzWarning,
            stacklevel=2,
        )
        return False
    file = own if own.exists() else others[0]
    try:
        state = read_torch(file)
    except Exception as error:  # torch raises anything on a damaged file
        raise InvalidInputError(f"resume_from_checkpoint: {file} cannot be read ({error})") from error
    if not isinstance(state, dict):
        raise InvalidInputError(f"resume_from_checkpoint: expected a state in {file}, got {type(state).__name__}")
    if not own.exists():
        state["generator"] = regularizer.generator.get_state()
    regularizer.load_state_dict(state)
    return own.exists()


def _own_file(folder: Path) -> Path:
    suffix = f"_{process_rank()}" if number_of_processes() > 1 else ""
    return folder / f"{_NAME}{suffix}.pt"
