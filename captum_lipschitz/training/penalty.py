"""The Lipschitz penalty as a pure function: logits, inputs, labels and random draws in, one scalar out."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs, check_label_sets, check_labels, check_logits, gradient
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.objectives import logit, margin
from captum_lipschitz.training.graph import refuse_unsupported

_SUM_TOLERANCE = 1e-2  # of class probabilities in half precision


class PenaltyDraws(NamedTuple):
    """What is differentiated for each image.

    Attributes:
        classes: (N,) int64, the logit of a plain draw.
        tandem: (N,) bool, where the label's margin is taken instead.
    """

    classes: Tensor
    tandem: Tensor


class Positions(NamedTuple):
    """Draws made before the number of classes is known, as before a forward pass.

    Attributes:
        positions: (N,) float32, uniform in [0, 1): how far into the list of classes the drawn one stands.
        tandem: (N,) bool, where the label's margin is taken instead.
    """

    positions: Tensor
    tandem: Tensor

    def of(self, num_classes: int) -> PenaltyDraws:
        """The draws among so many classes."""
        classes = (self.positions * num_classes).long().clamp(max=num_classes - 1)
        return PenaltyDraws(classes, self.tandem)


def draw_positions(
    num_images: int,
    *,
    tandem_probability: float,
    generator: torch.Generator | None,
    device: torch.device | str = "cpu",
) -> Positions:
    """Draw for each image where in the list of classes to look, and whether it is a tandem draw instead.

    Args:
        num_images: N.
        tandem_probability: zeta, in [0, 1].
        generator: where the numbers come from, on its own device; ``None`` is torch's global one.
        device: where the draws are wanted.
    """
    source = generator.device if generator is not None else torch.device("cpu")
    positions = torch.rand(num_images, generator=generator, device=source)
    tandem = torch.rand(num_images, generator=generator, device=source) < tandem_probability
    return Positions(to_device(positions, device), to_device(tandem, device))


def to_device(drawn: Tensor, device: torch.device | str) -> Tensor:
    """Random numbers where they are wanted, without waiting for that device."""
    # CUDA takes a copy of what it is sent before it returns, so that nothing has to wait; other devices may not.
    return drawn.to(device, non_blocking=torch.device(device).type == "cuda")


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

    Returns:
        ``PenaltyDraws``: classes and tandem draws, each (N,), on ``device``.
    """
    drawn = draw_positions(num_images, tandem_probability=tandem_probability, generator=generator, device=device)
    return drawn.of(num_classes)


def lipschitz_penalty(
    logits: Tensor,
    inputs: Tensor,
    labels: Tensor,
    *,
    draws: PenaltyDraws,
    power: float = 2,
    multi_label: bool = False,
) -> Tensor:
    """Mean over images, channels and pixels of ``|d(sum_i s_i) / d inputs| ** power``, differentiable once more.

    ``s_i`` is the drawn logit of image i, or for a tandem draw its label's margin:

    - a class: its logit minus the largest other;
    - class probabilities (label smoothing, mixup): the same, of the most probable class, the first of several;
    - several labels: the smallest logit of those that are there minus the largest of those that are not, which for one
      label is the same again; an image without any of either takes its drawn logit.

    With batch statistics (BatchNorm in train mode) the gradient includes the terms between images, as in the published
    code. With ``power=2``, without batch statistics and tandem draws, the expectation over the draws is the squared
    Frobenius norm of the Jacobian over C times the number of input features.

    Args:
        logits: (N, C), computed from ``inputs`` with gradients enabled.
        inputs: (N, ...), with ``requires_grad`` set before the forward pass.
        labels: integer classes, (N,), or floating class probabilities, (N, C); with ``multi_label`` 1 (there), 0 (not
            there) and -1 (unknown), (N, C), of any real dtype. They matter for tandem draws only.
        draws: what to differentiate, see ``draw``.
        power: z, positive.
        multi_label: an image may have several labels, or none; then C may be 1.

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
    labels = check_penalty_arguments(logits, inputs, labels, power=power, multi_label=multi_label)
    values = look_at_values(inputs)
    classes = check_labels(draws.classes, len(inputs), logits.shape[1], "draws.classes", values=values)
    plain = logit(logits, classes)
    return slope_power(torch.where(draws.tandem, lead(logits, labels, plain), plain), inputs, power)


def lead(logits: Tensor, labels: Tensor, otherwise: Tensor) -> Tensor:
    """What a tandem draw differentiates, (N,): by how much the labels lead.

    Args:
        logits: (N, C).
        labels: classes, (N,), or sets of labels, (N, C), as ``check_penalty_arguments`` returns them.
        otherwise: (N,), for an image with a set of labels that leads nothing.
    """
    return _ranking_margin(logits, labels, otherwise) if labels.dim() == 2 else margin(logits, labels)


def leads(logits: Tensor, labels: Tensor) -> Tensor:
    """Which images' labels lead anything, (N,) of 1 and 0 in the logits' dtype; see ``lead``."""
    if labels.dim() == 1:
        return torch.ones_like(logits[:, 0])
    return ((labels > 0).any(1) & (labels == 0).any(1)).to(logits.dtype)


def slope_power(scalars: Tensor, inputs: Tensor, power: float) -> Tensor:
    """Mean over images, channels and pixels of ``|d(sum_i scalars_i) / d inputs| ** power``, with its graph."""
    with _without_autocast(inputs.device.type):
        slopes = gradient(scalars, inputs, create_graph=True)
        slopes = slopes.to(torch.promote_types(slopes.dtype, torch.float32))
        return slopes.square().mean() if power == 2 else slopes.abs().pow(power).mean()


def _without_autocast(device: str) -> AbstractContextManager[object]:
    """A backward pass has the forward pass's precisions; casting once more would only round."""
    available = torch.amp.autocast_mode.is_autocast_available(device)
    return torch.autocast(device, enabled=False) if available else nullcontext()


def _ranking_margin(logits: Tensor, labels: Tensor, otherwise: Tensor) -> Tensor:
    """The smallest logit of the labels that are there minus the largest of those that are not, (N,).

    ``otherwise``, (N,), for an image that has none of either.
    """
    lowest = torch.where(labels > 0, logits, torch.inf).amin(1)
    highest = torch.where(labels == 0, logits, -torch.inf).amax(1)
    defined = leads(logits, labels) > 0
    # Infinite differences are replaced before the subtraction too: their derivative would be NaN.
    lowest, highest = (torch.where(defined, extreme, torch.zeros_like(extreme)) for extreme in (lowest, highest))
    return torch.where(defined, lowest - highest, otherwise)


def look_at_values(inputs: object) -> bool:
    """Whether values are checked as well: not where that would wait for a device, nor in a graph being compiled."""
    return isinstance(inputs, Tensor) and inputs.device.type == "cpu" and not torch.compiler.is_compiling()


def check_penalty_arguments(
    logits: Tensor, inputs: Tensor, labels: Tensor, *, power: float, multi_label: bool
) -> Tensor:
    """Raise for what cannot be used.

    Returns:
        The labels as a tandem draw takes them: classes, (N,), or with ``multi_label`` (N, C).
    """
    if not power > 0:
        raise InvalidInputError(f"power: expected a positive exponent, got {power}")
    values = look_at_values(inputs)
    check_inputs(inputs, values=values)
    check_logits(logits, len(inputs), finite=values, at_least=1 if multi_label else 2)
    labels = _label_sets(labels, logits, values=values) if multi_label else _classes(labels, logits, values=values)
    if not inputs.requires_grad:
        raise InvalidInputError(
            "inputs: expected requires_grad, set before the forward pass: "
            "inputs.requires_grad_(); logits = model(inputs)"
        )
    refuse_unsupported(logits)
    return labels


def _classes(labels: object, logits: Tensor, *, values: bool) -> Tensor:
    """One class per image, (N,), of classes or of class probabilities, (N, C)."""
    count, num_classes = logits.shape
    if not (isinstance(labels, Tensor) and labels.dim() == 2 and count > 0):
        return check_labels(labels, count, num_classes, values=values)
    if not labels.is_floating_point():
        raise InvalidTypeError(
            f"labels: expected integer classes (N,) or floating class probabilities (N, C), got {labels.dtype} "
            f"{tuple(labels.shape)}; for images with several labels set multi_label=True"
        )
    if labels.shape != logits.shape:
        raise InvalidInputError(
            f"labels: expected class probabilities of shape {tuple(logits.shape)}, got {tuple(labels.shape)}"
        )
    if values:
        total = labels.detach().double().sum(1)
        if bool((labels < 0).any()) or not torch.allclose(total, torch.ones_like(total), atol=_SUM_TOLERANCE):
            raise InvalidInputError(
                "labels: expected class probabilities, rows of at least 0 that sum to 1; for images with several "
                "labels set multi_label=True"
            )
    return labels.argmax(1)


def _label_sets(labels: object, logits: Tensor, *, values: bool) -> Tensor:
    """Labels of several per image, (N, C)."""
    if values:
        return check_label_sets(labels, *logits.shape)
    if not isinstance(labels, Tensor) or labels.shape != logits.shape:
        raise InvalidInputError(
            f"labels: expected one row of labels per image, shape {tuple(logits.shape)}, got "
            f"{tuple(labels.shape) if isinstance(labels, Tensor) else type(labels).__name__}"
        )
    return labels
