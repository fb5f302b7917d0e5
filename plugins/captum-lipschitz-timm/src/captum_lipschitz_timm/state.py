"""The regularizer's state in a checkpoint that one process writes and all of them read."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import torch

from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz.training import LipschitzRegularizer
from captum_lipschitz.training.processes import process_rank


def regularizer_state(regularizer: LipschitzRegularizer) -> dict[str, Any]:
    """Numbers and tensors only, as ``torch.load(weights_only=True)`` reads them."""
    return regularizer.state_dict()


def load_regularizer_state(regularizer: LipschitzRegularizer, state: Mapping[str, Any] | None) -> None:
    """Go on from a state that the first process saved.

    The first process goes on with its draws. The others, whose generators nobody saved (timm's loop writes checkpoints
    in one process), draw anew, each its own: from a seed that the saved generator draws, and the process's number.

    Args:
        regularizer: gets the state.
        state: of ``regularizer_state``; ``None`` where the checkpoint has none.

    Raises:
        InvalidInputError: the state is not a regularizer's.

    Warns:
        CaptumLipschitzWarning: there is none.
    """
    if state is None:
        warnings.warn(
            "load_task_state: the checkpoint was made without a LipschitzRegularizer; its controller and draws begin "
            "anew",
            CaptumLipschitzWarning,
            stacklevel=4,
        )
        return
    regularizer.load_state_dict(state)
    if process_rank() > 0:
        seed = int(torch.randint(2**62, (), generator=regularizer.generator, device=regularizer.generator.device))
        regularizer.generator.manual_seed(seed + process_rank())
