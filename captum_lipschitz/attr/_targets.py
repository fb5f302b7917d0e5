"""From Captum's ``target`` and a model's output to one scalar per example: what an attribution climbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from captum._utils.common import _select_targets
from torch import Tensor

from captum_lipschitz._model import check_labels, check_logits
from captum_lipschitz.errors import InvalidInputError, ModelOutputError
from captum_lipschitz.objectives import log_odds, logit, without_label

OBJECTIVES = ("auto", "log_odds", "multi_label", "regression", "output")

Read: TypeAlias = Callable[[Tensor], Tensor]
"""From outputs (N, ...) to one scalar per example, (N,)."""


class Evidence:
    """The scalar that an attribution follows, one per example.

    The first output settles what is read off it: shapes, classes and values are checked then, which waits for the
    device. Every later one is indexed the same way, and nothing waits.

    Args:
        settle: from the first output to what reads it and the later ones.
    """

    def __init__(self, settle: Callable[[object], Read]) -> None:
        self._settle = settle
        self._read: Read | None = None
        self._shape = torch.Size()

    def __call__(self, output: object) -> Tensor:
        """The evidence, (N,), in single precision at least."""
        if self._read is None:
            self._read = self._settle(output)
            assert isinstance(output, Tensor)  # noqa: S101 (settling refuses everything else)
            self._shape = output.shape
        if not isinstance(output, Tensor) or output.shape != self._shape:
            got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise ModelOutputError(
                f"forward_func: expected outputs of the same shape at every step, {tuple(self._shape)}, got {got}"
            )
        return self._read(precise(output))


def precise(output: Tensor) -> Tensor:
    """At least single precision: sums of exponentials need it."""
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def settle(output: object, target: Any, objective: str, num_rows: int) -> Read:
    """How the evidence for ``target`` is read off outputs like this one.

    Args:
        output: what ``forward_func`` returned.
        target: any form that Captum accepts.
        objective: ``"log_odds"`` of the target among the classes; ``"output"`` or ``"regression"``, the selected output
            itself; ``"multi_label"``, the selected one of (N, K) independent logits, which is a sigmoid's log-odds;
            ``"auto"``, log-odds for an output of shape (N, C) with a target, otherwise the selected output.
        num_rows: N.
    """
    if is_classifier(output, target, objective):
        _tensor(output)
        logits = check_logits(output, num_rows)
        labels = classes(target, logits)
        return lambda later: log_odds(later, labels)
    try:
        chosen = columns(output, target, num_rows, multi_label=objective == "multi_label")
    except InvalidInputError as error:
        if objective == "auto" and isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] == 1:
            raise ModelOutputError(
                f"forward_func: expected at least two classes, got one, of which the target can only be 0 ({error})"
            ) from error
        raise
    return lambda later: logit(later.reshape(num_rows, -1), chosen)


def settle_contrast(output: object, target: Any, baseline_target: Any, num_rows: int) -> Read:
    """How the difference between two outputs is read: of two classes' logits, it is their log-odds.

    Without a baseline it is the likeliest class but the target, where the outputs are classes, (N, C).
    """
    chosen = columns(output, target, num_rows)
    if baseline_target is None:
        labels = classes(target, check_logits(output, num_rows))
        others = without_label(_tensor(output).detach(), labels).argmax(1)
    else:
        others = columns(output, baseline_target, num_rows, name="baseline_target")
    if bool((chosen == others).any()):
        raise InvalidInputError(
            f"baseline_target: expected another output than the target for every example, got {baseline_target!r}"
        )

    def read(later: Tensor) -> Tensor:
        flat = later.reshape(num_rows, -1)
        return logit(flat, chosen) - logit(flat, others)

    return read


def is_classifier(output: object, target: object, objective: str) -> bool:
    """Whether the evidence is the log-odds of a class."""
    if objective == "auto":
        # A single column is a logit by itself: a sigmoid's log-odds.
        return target is not None and (not isinstance(output, Tensor) or (output.dim() == 2 and output.shape[1] > 1))
    return objective == "log_odds"


def columns(output: object, target: Any, num_rows: int, *, multi_label: bool = False, name: str = "target") -> Tensor:
    """Which of an example's outputs, flattened, the target selects, (N,)."""
    found = _tensor(output)
    if not found.is_floating_point() or not bool(torch.isfinite(found.detach()).all()):
        raise ModelOutputError(f"forward_func: expected finite floating outputs, got NaN, infinity or {found.dtype}")
    if found.dim() == 0 or len(found) != num_rows or (multi_label and found.dim() != 2):
        shape = f"({num_rows}, K)" if multi_label else f"({num_rows}, ...)"
        raise ModelOutputError(f"forward_func: expected outputs of shape {shape}, got {tuple(found.shape)}")
    numbers = torch.arange(found.numel(), device=found.device).reshape(found.shape)
    target = target.to(found.device) if isinstance(target, Tensor) else target
    selected = _captum(_select_targets, numbers, target, name)
    if target is None and selected.numel() > num_rows:
        raise InvalidInputError(
            f"{name}: expected the output to explain, such as a class for each example, as there are "
            f"{found.numel() // num_rows} for each; got None"
        )
    if selected.numel() != num_rows:
        raise InvalidInputError(
            f"{name}: expected a selection of one output per example, got {tuple(selected.shape)} of "
            f"{tuple(found.shape)} for {num_rows} examples"
        )
    return selected.reshape(num_rows) % (found.numel() // num_rows)


def _tensor(output: object) -> Tensor:
    if not isinstance(output, Tensor):
        raise not_a_tensor(output)
    return output


def not_a_tensor(output: object) -> ModelOutputError:
    """The error for a model that returns something else, with the way out."""
    part = ".logits" if hasattr(output, "logits") else "[0]" if isinstance(output, (tuple, list)) else "[...]"
    return ModelOutputError(
        f"forward_func: expected one tensor, got {type(output).__name__}; wrap the model in a function that returns "
        f"one, such as lambda *inputs: model(*inputs){part}"
    )


def classes(target: Any, logits: Tensor, name: str = "target") -> Tensor:
    """One class per example, (N,), from an int, a one-element tuple, a list or a tensor."""
    if target is None:
        raise InvalidInputError(f"{name}: the log-odds need a class for each example, got None")
    numbers = torch.arange(logits.shape[1], device=logits.device).expand(len(logits), -1)
    if isinstance(target, Tensor):
        target = target.to(logits.device)
        labels = target.reshape(-1) if target.numel() == 1 else target
        labels = labels.expand(len(logits)) if labels.numel() == 1 else labels
        return check_labels(labels, len(logits), logits.shape[1], name)
    if isinstance(target, int) and not -logits.shape[1] <= target < logits.shape[1]:
        raise InvalidInputError(f"{name}: expected classes in 0..{logits.shape[1] - 1}, got {target}")
    selected = _captum(_select_targets, numbers, target, name)
    if selected.numel() != len(logits):
        raise InvalidInputError(f"{name}: expected one class for each example, got {target!r}")
    return selected.reshape(len(logits))


def _captum(select: Callable[[Tensor, Any], Tensor], output: Tensor, target: Any, name: str = "target") -> Tensor:
    """Captum's own selection, its assertion errors turned into ours."""
    try:
        return select(output, target)
    except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(
            f"{name}: {target!r} does not fit an output of {tuple(output.shape)}: {error}"
        ) from error
