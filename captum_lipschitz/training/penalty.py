"""The Lipschitz penalty as a pure function: logits, inputs, labels and random draws in, one scalar out."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs, check_labels, check_logits, gradient
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.objectives import logit, margin


class PenaltyDraws(NamedTuple):
    """What is differentiated for each image.

    Attributes:
        classes: (N,) int64, the logit of a plain draw.
        tandem: (N,) bool, where the true logit minus the largest other is taken instead.
    """

    classes: Tensor
    tandem: Tensor


def draw(
    num_images: int,
    num_classes: int,
    *,
    tandem_probability: float,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
) -> PenaltyDraws:
    """Draw for each image one class uniformly, and whether it is a tandem draw instead.

    Args:
        num_images: N.
        num_classes: C.
        tandem_probability: zeta, in [0, 1].
        generator: where the numbers come from, on its own device; ``None`` is torch's global one.
        device: where the draws are wanted.
    """
    source = generator.device if generator is not None else torch.device("cpu")
    classes = torch.randint(num_classes, (num_images,), generator=generator, device=source)
    tandem = torch.rand(num_images, generator=generator, device=source) < tandem_probability
    return PenaltyDraws(classes.to(device), tandem.to(device))


def lipschitz_penalty(
    logits: Tensor, inputs: Tensor, labels: Tensor, *, draws: PenaltyDraws, power: float = 2
) -> Tensor:
    """Mean over images, channels and pixels of ``|d(sum_i s_i) / d inputs| ** power``, differentiable once more.

    ``s_i`` is the drawn logit of image i, or for a tandem draw its true logit minus the largest other. With batch
    statistics (BatchNorm in train mode) the gradient includes the terms between images, as in the published code. With
    ``power=2``, without batch statistics and tandem draws, the expectation over the draws is the squared Frobenius norm
    of the Jacobian over C times the number of input features.

    Args:
        logits: (N, C), computed from ``inputs`` with gradients enabled.
        inputs: (N, ...), with ``requires_grad`` set before the forward pass.
        labels: integer classes, (N,); they matter for tandem draws only.
        draws: what to differentiate, see ``draw``.
        power: z, positive.

    Returns:
        A scalar, at least 0.

    Raises:
        InvalidInputError, InvalidTypeError: for inputs, labels or a power that cannot be used. Values are looked at on
            the CPU only, as looking at them elsewhere would wait for the device.
        ModelOutputError, DisconnectedModelError: for logits that are none, or do not depend on the inputs.

    Example:
        >>> model = torch.nn.Linear(4, 3)
        >>> inputs = torch.rand(8, 4, requires_grad=True)
        >>> draws = draw(8, 3, tandem_probability=0.2, generator=torch.Generator().manual_seed(0))
        >>> penalty = lipschitz_penalty(model(inputs), inputs, torch.zeros(8, dtype=torch.long), draws=draws)
        >>> penalty.shape
        torch.Size([])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods; zeta is ``tandem_probability`` there.
    """
    _check(logits, inputs, labels, draws, power)
    plain = logit(logits, draws.classes)
    scalars = torch.where(draws.tandem, margin(logits, labels), plain)
    slopes = gradient(scalars, inputs, create_graph=True)
    return slopes.square().mean() if power == 2 else slopes.abs().pow(power).mean()


def _check(logits: Tensor, inputs: Tensor, labels: Tensor, draws: PenaltyDraws, power: float) -> None:
    if not power > 0:
        raise InvalidInputError(f"power: expected a positive exponent, got {power}")
    values = isinstance(inputs, Tensor) and inputs.device.type == "cpu"
    check_inputs(inputs, values=values)
    check_logits(logits, len(inputs), finite=values)
    check_labels(labels, len(inputs), logits.shape[1], values=values)
    check_labels(draws.classes, len(inputs), logits.shape[1], "draws.classes", values=values)
    if not inputs.requires_grad:
        raise InvalidInputError(
            "inputs: expected requires_grad, set before the forward pass: "
            "inputs.requires_grad_(); logits = model(inputs)"
        )
