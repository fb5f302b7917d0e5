"""From Captum's ``target`` and a model's output to one scalar per example: what an attribution climbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum._utils.common import _select_targets
from torch import Tensor

from captum_lipschitz._model import check_labels, check_logits
from captum_lipschitz.errors import InvalidInputError, ModelOutputError
from captum_lipschitz.objectives import log_odds

OBJECTIVES = ("auto", "log_odds", "multi_label", "output")


def evidence(output: object, target: Any, objective: str, num_rows: int) -> Tensor:
    """The scalar that an attribution follows, (N,).

    Args:
        output: what ``forward_func`` returned.
        target: any form that Captum accepts.
        objective: ``"log_odds"`` of the target among the classes; ``"output"``, the selected output itself;
            ``"multi_label"``, the selected output too, as a sigmoid's log-odds are its logit; ``"auto"``, log-odds for
            an output of shape (N, C) with a target, otherwise the selected output.
        num_rows: N.
    """
    if objective == "log_odds" or (objective == "auto" and _is_classifier(output, target)):
        if objective == "auto" and isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] == 1:
            raise ModelOutputError(
                "forward_func: expected at least two classes, got one; for a single output use objective='output'"
            )
        logits = check_logits(output, num_rows)
        return log_odds(logits, _classes(target, logits))
    if not isinstance(output, Tensor):
        raise ModelOutputError(
            f"forward_func: expected one tensor, got {type(output).__name__}; wrap it in a function that returns one"
        )
    if not output.is_floating_point() or not bool(torch.isfinite(output.detach()).all()):
        raise ModelOutputError(f"forward_func: expected finite floating outputs, got NaN, infinity or {output.dtype}")
    selected = _captum(_select_targets, output, target)
    if selected.numel() != num_rows:
        raise InvalidInputError(
            f"target: expected a selection of one output per example, got {tuple(selected.shape)} of "
            f"{tuple(output.shape)} for {num_rows} examples"
        )
    return selected.reshape(num_rows)


def _is_classifier(output: object, target: object) -> bool:
    return target is not None and (not isinstance(output, Tensor) or output.dim() == 2)


def _classes(target: Any, logits: Tensor) -> Tensor:
    """One class per example, (N,), from an int, a one-element tuple, a list or a tensor."""
    if target is None:
        raise InvalidInputError("target: the log-odds need a class for each example, got None")
    numbers = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    if isinstance(target, Tensor):
        target = target.to(logits.device)
        labels = target.reshape(-1) if target.numel() == 1 else target
        labels = labels.expand(len(logits)) if labels.numel() == 1 else labels
        return check_labels(labels, len(logits), logits.shape[1], "target")
    flat = [target] if isinstance(target, (int, tuple)) else list(target)
    indices = torch.tensor([int(t[0]) if isinstance(t, tuple) else int(t) for t in flat])
    check_labels(indices, len(indices), logits.shape[1], "target")
    return _captum(_select_targets, numbers, target)


def _captum(select: Callable[[Tensor, Any], Tensor], output: Tensor, target: Any) -> Tensor:
    """Captum's own selection, its assertion errors turned into ours."""
    try:
        return select(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError) as error:
        raise InvalidInputError(
            f"target: {target!r} does not fit an output of {tuple(output.shape)}: {error}"
        ) from error
