"""Per-image scalars of the logits, shape (N,): what an attack follows and what a penalty differentiates."""

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``(logits (N, C), labels (N,)) -> (N,)``; larger means more evidence for the label."""


def logit(logits: Tensor, labels: Tensor) -> Tensor:
    """The logit of each image's label: ``z_y``, shape (N,).

    Args:
        logits: (N, C).
        labels: integer classes, (N,).

    Returns:
        (N,), in the logits' units (nats).
    """
    return logits.gather(1, labels[:, None]).squeeze(1)


def without_label(logits: Tensor, labels: Tensor) -> Tensor:
    """The logits with each image's label at minus infinity, shape (N, C).

    Args:
        logits: (N, C).
        labels: integer classes, (N,).

    Returns:
        (N, C).
    """
    return logits.scatter(1, labels[:, None], -torch.inf)


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's logit minus the largest other: ``z_y - max_j z_j``, shape (N,); negative means misclassified.

    Args:
        logits: (N, C).
        labels: integer classes, (N,).

    Returns:
        (N,), in nats.
    """
    return logit(logits, labels) - without_label(logits, labels).amax(1)


def log_odds(logits: Tensor, labels: Tensor) -> Tensor:
    """The label's log-odds, ``z_y - logsumexp_j z_j`` over the other classes: ``log(p_y / (1 - p_y))``, shape (N,).

    Cross entropy is ``softplus(-log_odds)``, so both have the same direction; only this one keeps its gradient where
    a network is confident and float32 cross entropy has none left.

    Args:
        logits: (N, C).
        labels: integer classes, (N,).

    Returns:
        (N,), in nats; ``inf`` where there is no other class.
    """
    return logit(logits, labels) - without_label(logits, labels).logsumexp(1)


def negative_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """``log p_y``, the published attack's objective, shape (N,), at most 0.

    Args:
        logits: (N, C).
        labels: integer classes, (N,).

    Returns:
        (N,), in nats.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (the attack).
    """
    return logit(logits, labels) - logits.logsumexp(1)


_OBJECTIVES: dict[str, Objective] = {
    "log_odds": log_odds,
    "cross_entropy": negative_cross_entropy,
    "margin": margin,
    "logit": logit,
}


def as_objective(objective: Objective | str) -> Objective:
    """An objective from a function or one of the names ``log_odds``, ``cross_entropy``, ``margin``, ``logit``.

    Args:
        objective: one of these names, or a function of logits (N, C) and labels (N,) with values (N,).

    Returns:
        The function.

    Raises:
        InvalidInputError, InvalidTypeError: an unknown name, or what is no function.
    """
    if isinstance(objective, str):
        if objective not in _OBJECTIVES:
            raise InvalidInputError(f"objective: expected one of {sorted(_OBJECTIVES)}, got {objective!r}")
        return _OBJECTIVES[objective]
    if not callable(objective):
        raise InvalidTypeError(f"objective: expected a function or a name, got {type(objective).__name__}")
    return objective
