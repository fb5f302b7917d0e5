"""Labels and scale of a mean cross entropy, read off its gradient, where the loss itself is formed out of reach."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz.errors import UnsupportedLossError

_LEAST_ROUNDING = 4e-6  # of a float32 softmax, whose exponentials are less exact than its last bit


class CrossEntropyReading(NamedTuple):
    """What the gradient of a cross entropy with respect to its logits tells: the labels (N,) and the loss's scale."""

    labels: Tensor
    scale: Tensor


def read_cross_entropy(logits: Tensor, gradient: Tensor) -> CrossEntropyReading:
    """Labels and scale of a mean cross entropy, from its gradient with respect to the logits.

    Args:
        logits: (N, C).
        gradient: (N, C), as it arrives at the logits.

    Returns:
        The labels, (N,), and the factor on the mean cross entropy. A row without a negative entry is one that the
        network is certain of (its label's probability rounds to 1), so its label is the argmax.

    Raises:
        UnsupportedLossError: the gradient is not ``scale / N * (softmax - onehot)``.
    """
    precise = gradient.double() if gradient.device.type != "mps" else gradient.float()
    labels = torch.where((gradient < 0).any(1), gradient.argmin(1), logits.argmax(1))
    expected = logits.to(precise.dtype).softmax(1) - F.one_hot(labels, logits.shape[1])
    # The label's own entry, p - 1, is rounded away where p is near 1; the others are exact relative to themselves.
    others = expected.clamp(min=0)
    factor = (others * precise).sum() / others.square().sum().clamp(min=torch.finfo(precise.dtype).tiny)
    error = (precise - factor * expected).norm()
    # Each entry was rounded relative to itself, and a probability near 1 relative to 1.
    rounding = max(torch.finfo(gradient.dtype).eps, _LEAST_ROUNDING)
    tolerance = rounding * (precise.norm() + factor * len(logits) ** 0.5)
    if bool(factor < 0) or bool(error > tolerance):
        raise UnsupportedLossError(
            "loss: expected the mean cross entropy of integer labels, times any factor; the gradient at the logits is "
            "of another form (label smoothing, mixup, class weights, a second loss). Add the regularizer explicitly: "
            "loss = regularizer(logits, inputs, labels, task_loss=loss).loss"
        )
    return CrossEntropyReading(labels, factor * len(logits))
