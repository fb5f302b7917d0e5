"""Estimators of the expected penalty that spend more than one gradient for less variance."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.training.penalty import (
    PenaltyDraws,
    check_penalty_arguments,
    lead,
    leads,
    lipschitz_penalty,
    slope_power,
)


def mean_penalty(
    logits: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    draws: Sequence[PenaltyDraws],
    power: float = 2,
    multi_label: bool = False,
) -> Tensor:
    """The mean of ``lipschitz_penalty`` over several draws: unbiased, and its variance falls with their number.

    Args:
        logits: (N, C), computed from ``inputs`` with gradients enabled.
        inputs: (N, ...), with ``requires_grad`` set before the forward pass.
        labels: as ``lipschitz_penalty`` takes them.
        draws: at least one; each costs a gradient and its second derivative.
        power: z, positive.
        multi_label: as ``lipschitz_penalty`` takes it.

    Returns:
        A scalar, at least 0.

    Raises:
        InvalidInputError: there are no draws; otherwise as ``lipschitz_penalty``.

    Example:
        >>> from captum_lipschitz.training import draw
        >>> model, inputs = torch.nn.Linear(4, 3), torch.rand(8, 4, requires_grad=True)
        >>> draws = [draw(8, 3, tandem_probability=0.2, generator=None) for _ in range(2)]
        >>> mean_penalty(model(inputs), inputs, torch.zeros(8, dtype=torch.long), draws=draws).shape
        torch.Size([])
    """
    if not draws:
        raise InvalidInputError("draws: expected at least one, got none")
    penalties = [
        lipschitz_penalty(logits, inputs, labels, draws=one, power=power, multi_label=multi_label) for one in draws
    ]
    return torch.stack(penalties).mean()


def expected_penalty(
    logits: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    tandem_probability: float = 0.2,
    power: float = 2,
    multi_label: bool = False,
) -> Tensor:
    """The expectation of ``lipschitz_penalty`` over its draws, without drawing: for few classes.

    ``(1 - zeta) * mean over c of |d z_c / d x| ** z + zeta * |d lead / d x| ** z``, in the mean over images, channels
    and pixels, where lead is the label's margin. With ``power=2`` and ``tandem_probability=0`` it is the squared
    Frobenius norm of the Jacobian over C times the number of input features. It costs C gradients (C + 1 with tandem
    draws) and their second derivatives.

    It is the expectation where images do not touch each other. With batch statistics (BatchNorm in train mode) it is
    not: there one gradient holds all images' drawn logits, here all images have the same class at a time.

    Args:
        logits: (N, C), computed from ``inputs`` with gradients enabled.
        inputs: (N, ...), with ``requires_grad`` set before the forward pass.
        labels: as ``lipschitz_penalty`` takes them.
        tandem_probability: zeta, in [0, 1].
        power: z, positive.
        multi_label: as ``lipschitz_penalty`` takes it; an image whose labels lead nothing has no tandem draw.

    Returns:
        A scalar, at least 0.

    Raises:
        InvalidInputError, InvalidTypeError, ModelOutputError, DisconnectedModelError: as ``lipschitz_penalty``.

    Example:
        >>> model, inputs = torch.nn.Linear(4, 3), torch.rand(8, 4, requires_grad=True)
        >>> labels = torch.zeros(8, dtype=torch.long)
        >>> exact = expected_penalty(model(inputs), inputs, labels, tandem_probability=0.0)
        >>> bool(torch.isclose(exact, model.weight.square().mean()))
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods; Hoffman et al. 2019, arXiv 1908.02729, for the
        Jacobian's norm by random projections.
    """
    labels = check_penalty_arguments(logits, inputs, labels, power=power, multi_label=multi_label)
    if not 0 <= tandem_probability <= 1:
        raise InvalidInputError(f"tandem_probability: expected a value in [0, 1], got {tandem_probability}")
    share = tandem_probability * leads(logits, labels)
    # A scalar times w ** (1 / z) weighs w in |slope| ** z, so that each image can have a weight of its own.
    plain, tandem = (1 - share) ** (1 / power), share ** (1 / power)
    total = torch.stack([slope_power(plain * logits[:, c], inputs, power) for c in range(logits.shape[1])]).mean()
    if tandem_probability > 0:
        total = total + slope_power(tandem * lead(logits, labels, logits[:, 0]), inputs, power)
    return total
