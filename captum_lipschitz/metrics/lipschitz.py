"""How steep a model is at an image, and the robustness that this promises without an attack."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_lipschitz._memory import in_chunks, out_of_memory
from captum_lipschitz._model import check_inputs, check_labels, check_logits, gradient
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Norm, as_norm, row_dot
from captum_lipschitz.metrics.area import bootstrap_generator
from captum_lipschitz.objectives import margin

_CONVERGED = 1e-7  # relative gain of a step after which an image is done
_PATIENCE = 3  # such steps in a row


def local_lipschitz(
    model: Model,
    inputs: Tensor,
    labels: Tensor | None = None,
    *,
    norm: Norm | str = "l2",
    iterations: int = 200,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The model's local Lipschitz constant at each image: how fast its logits, or its margins, can change there.

    Without labels, ``max |J d|`` over perturbations d of size 1, with J the Jacobian of the logits at the image and the
    L2 norm of logits: for ``"l2"`` the spectral norm of J, found by power iteration, ``v = J'u, u = Jv / |Jv|``, where
    each product costs one backward pass. Per unit of rho (``"rmse"``) it is sqrt(features) times that. With labels, the
    size of the gradient of the margin, ``z_y - max_j z_j``: one gradient, no iteration.

    Args:
        model: maps inputs (N, ...) to logits (N, C); run in evaluation mode and left as it was.
        inputs: (N, ...), floating and finite.
        labels: integer classes, (N,), or ``None``.
        norm: what perturbations are measured in; with ``"linf"`` and without labels the result is a lower bound, as
            the iteration may end in a local maximum.
        iterations: at most so many, at least 1; an image is done once three steps in a row gain less than 1e-7 of it.
        generator: on the CPU, of the start, which is the same for all images; ``None`` is a fixed seed.

    Returns:
        (N,), at least 0, in logits per unit of the norm. It scales with the logits: compare ``margin_radius`` across
        models, not this.

    Raises:
        InvalidInputError, InvalidTypeError: for inputs, labels or settings that cannot be used.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

    Example:
        >>> model = torch.nn.Linear(4, 3)
        >>> found = local_lipschitz(model, torch.rand(2, 4))
        >>> bool(torch.allclose(found, torch.linalg.matrix_norm(model.weight, ord=2).expand(2)))
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (the Lipschitz argument); Miyato et al. 2018, arXiv 1802.05957
        (power iteration).
    """
    inputs = check_inputs(inputs).detach()
    labels = None if labels is None else check_labels(labels, len(inputs)).to(inputs.device)
    measure = as_norm(norm)
    measure.check(inputs)
    if iterations < 1:
        raise InvalidInputError(f"iterations: expected at least 1, got {iterations}")
    draws = bootstrap_generator(generator)
    before = draws.get_state()

    def steepness(start: int, stop: int) -> Tensor:
        draws.set_state(before)  # the same start for all images
        leaf = inputs[start:stop].clone().requires_grad_()
        logits = check_logits(model(leaf), len(leaf))
        if labels is None:
            return _largest_gain(logits, leaf, measure, iterations, draws)
        own = labels[start:stop].clone()  # which is no inference tensor
        check_labels(own, len(leaf), logits.shape[1])
        slope = gradient(margin(logits, own), leaf)
        return row_dot(slope, measure.steepest(slope))

    with settled(), no_trace(model, inputs):
        return torch.cat(in_chunks(steepness, len(inputs), what="local_lipschitz", device=inputs.device))


def margin_radius(
    model: Model,
    inputs: Tensor,
    labels: Tensor,
    *,
    criterion: Criterion | str = "misclassified",
    norm: Norm | str = "rmse",
) -> Tensor:
    """The distance to the decision boundary if the margin went on as it starts: ``margin / |grad margin|``.

    An estimate for the price of one gradient, neither an upper nor a lower bound (``docs/radius.md`` holds it against
    attacked distances). Multiplying the logits by a constant leaves it as it is, for ``"misclassified"``.

    Args:
        model: maps inputs (N, ...) to logits (N, C); run in evaluation mode and left as it was.
        inputs: (N, ...), floating and finite.
        labels: integer classes, (N,), or as the criterion has them.
        criterion: whose value takes the margin's place: ``"misclassified"``, ``"below_chance"`` or a ``Criterion``.
        norm: what the radius is measured in; the gradient's size is that of the dual norm.

    Returns:
        (N,), in units of the norm: 0 where the criterion is met already (a misclassified image), ``inf`` where the
        gradient is zero.

    Raises:
        InvalidInputError, InvalidTypeError: for inputs, labels or settings that cannot be used.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> radius = margin_radius(model, torch.tensor([[1.0, 0.0]]), torch.tensor([0]), norm="l2")
        >>> round(float(radius), 4)
        0.7071

    References:
        Hein and Andriushchenko 2017, arXiv 1705.08475 (margin over Lipschitz constant as a guarantee, where the
        constant holds in a neighbourhood); Moosavi-Dezfooli et al. 2016, arXiv 1511.04599 (the linearised distance).
    """
    inputs = check_inputs(inputs).detach()
    goal = as_criterion(criterion)
    labels = goal.check_labels(labels, len(inputs)).to(inputs.device)
    measure = as_norm(norm)
    measure.check(inputs)

    def radius_of(start: int, stop: int) -> Tensor:
        leaf = inputs[start:stop].clone().requires_grad_()
        own = goal.rows(torch.arange(start, stop))
        logits = own.check_logits(model(leaf), len(leaf))
        goal.check_labels(labels, len(inputs), logits.shape[1])
        goal.validate(len(inputs), logits.shape[1])
        value = own.value(logits, labels[start:stop].clone())  # a clone is no inference tensor
        radius = measure.distance_to_hyperplane(value.detach(), gradient(value, leaf))
        return torch.where(value.detach() <= 0, torch.zeros_like(radius), radius)

    with settled(), no_trace(model, inputs):
        return torch.cat(in_chunks(radius_of, len(inputs), what="margin_radius", device=inputs.device))


def _largest_gain(logits: Tensor, leaf: Tensor, norm: Norm, iterations: int, draws: torch.Generator) -> Tensor:
    """Power iteration on all images at once; each stops for itself, so that none depends on its neighbours."""
    count, num_classes = logits.shape
    product = _jacobian_product(logits, leaf)
    weights = torch.randn(num_classes, generator=draws, dtype=torch.float64).to(logits)[None].expand(count, -1)
    best = torch.zeros(count, dtype=logits.dtype, device=logits.device)
    stalled = torch.zeros(count, dtype=torch.int64, device=logits.device)
    for _ in range(iterations):
        image = product(norm.steepest(gradient((logits * weights).sum(1), leaf, retain_graph=True)))
        size = image.norm(dim=1)
        going = stalled < _PATIENCE
        stalled = torch.where(going & (size > best * (1 + _CONVERGED)), torch.zeros_like(stalled), stalled + 1)
        best = torch.where(going, torch.maximum(best, size), best)
        if not bool((stalled < _PATIENCE).any()):
            break
        weights = image / torch.where(size > 0, size, torch.ones_like(size))[:, None]
    return best


def _jacobian_product(logits: Tensor, leaf: Tensor) -> Callable[[Tensor], Tensor]:
    """``v (N, ...) -> J v (N, C)``: by differentiating ``J'u``, which is linear in u, with respect to u.

    A layer that cannot be differentiated twice (``once_differentiable``, fused attention) leaves one backward pass for
    each class.
    """
    weights = torch.zeros_like(logits, requires_grad=True)
    try:
        pulled = gradient((logits * weights).sum(1), leaf, create_graph=True)
        torch.autograd.grad(pulled, weights, torch.zeros_like(pulled), retain_graph=True)
    except (RuntimeError, NotImplementedError) as error:
        if out_of_memory(error):
            raise
        return lambda v: torch.stack([row_dot(row, v) for row in _rows(logits, leaf)], dim=1)
    return lambda v: torch.autograd.grad(pulled, weights, v, retain_graph=True)[0]


def _rows(logits: Tensor, leaf: Tensor) -> list[Tensor]:
    return [gradient(logits[:, k], leaf, retain_graph=True) for k in range(logits.shape[1])]
