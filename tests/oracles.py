"""Slow, obvious re-implementations and closed forms that the library is held against."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def minimal_distances(model: nn.Linear, inputs: Tensor, labels: Tensor, order: float) -> Tensor:
    """Distance to the nearest decision boundary of a linear model, in the L``order`` norm, image by image."""
    dual = 1.0 if math.isinf(order) else 2.0
    found = []
    for image, label in zip(inputs, labels, strict=True):
        logits = model(image)
        best = math.inf
        for other in range(len(logits)):
            if other != label:
                normal = model.weight[label] - model.weight[other]
                best = min(best, float((logits[label] - logits[other]) / normal.norm(p=dual)))
        found.append(max(best, 0.0))
    return torch.tensor(found, dtype=inputs.dtype)


def boxed_distance(normal: Tensor, image: Tensor, drop: float, order: float) -> float:
    """How far an image in [0, 1] must go for ``normal @ image`` to fall by ``drop``; ``normal`` is positive.

    The minimiser lowers every feature along the steepest direction until it stops at 0: bisect how far.
    """
    direction = torch.ones_like(normal) if math.isinf(order) else normal / normal.norm()
    low, high = 0.0, 1e9
    for _ in range(200):
        middle = (low + high) / 2
        moved = torch.minimum(middle * direction, image)
        low, high = (middle, high) if float(normal @ moved) < drop else (low, middle)
    return float(torch.minimum(high * direction, image).norm(p=order))


def penalty(model: nn.Module, inputs: Tensor, labels: Tensor, classes: Tensor, tandem: Tensor, power: float) -> Tensor:
    """The Lipschitz penalty with loops over images and features, one gradient for the summed scalars."""
    leaf = inputs.clone().requires_grad_()
    logits = model(leaf)
    total = torch.zeros((), dtype=inputs.dtype)
    for i in range(len(inputs)):
        if tandem[i]:
            others = [logits[i, j] for j in range(logits.shape[1]) if j != int(labels[i])]
            total = total + logits[i, labels[i]] - torch.stack(others).max()
        else:
            total = total + logits[i, classes[i]]
    (slopes,) = torch.autograd.grad(total, leaf, create_graph=True)
    terms = [slope.abs() ** power for slope in slopes.flatten()]
    return torch.stack(terms).sum() / len(terms)


def strengths(
    losses: list[float], *, target: float, initial: float, gain: float, rise: float, fall: float
) -> list[float]:
    """The published recursion, in Python's own floats."""
    integral, found = 0.0, []
    for loss in losses:
        change = -math.log(loss / target)
        change = min(max(change, -fall), rise)
        integral = max(0.0, integral + change)
        found.append(initial * math.exp(gain * integral))
    return found


def numerical_area(distances: Tensor, chance_accuracy: float, points: int = 200_001) -> float:
    """Midpoint rule over the curve, up to the largest finite distance."""
    finite = distances[torch.isfinite(distances)]
    end = float(finite.max()) if len(finite) else 0.0
    if end == 0:
        return 0.0
    step = end / points
    rho = (torch.arange(points, dtype=torch.float64) + 0.5) * step
    ordered = distances.sort().values
    accuracy = 1 - torch.searchsorted(ordered, rho, right=True) / len(ordered)
    return float(((accuracy - chance_accuracy).clamp(min=0) * step).sum())


def staircase_area(distances: list[float], chance_accuracy: float) -> float:
    """The area, step by step of the staircase; infinite where its last step is above chance."""
    total, left = 0.0, 0.0
    for right in sorted({d for d in distances if math.isfinite(d)}):
        accuracy = sum(d > left for d in distances) / len(distances)
        total += max(0.0, accuracy - chance_accuracy) * (right - left)
        left = right
    endless = sum(math.isinf(d) for d in distances) / len(distances) > chance_accuracy + 1e-9
    return math.inf if endless else total


def macro_area(distances: Tensor, labels: Tensor, chance_accuracy: float) -> float:
    """Mean over the classes that occur of the area of each one's images."""
    found: dict[int, list[float]] = {}
    for distance, label in zip(distances.tolist(), labels.tolist(), strict=True):
        found.setdefault(label, []).append(distance)
    return sum(staircase_area(one, chance_accuracy) for one in found.values()) / len(found)


def temperature(logits: Tensor, labels: Tensor) -> float:
    """Golden-section search for the T of the smallest mean negative log-likelihood, between 1e-6 and 1e6."""

    def loss(log_t: float) -> float:
        scaled = logits / math.exp(log_t)
        likelihoods = [row.log_softmax(0)[label] for row, label in zip(scaled, labels, strict=True)]
        return -float(torch.stack(likelihoods).mean())

    low, high, ratio = math.log(1e-6), math.log(1e6), (math.sqrt(5) - 1) / 2
    for _ in range(80):
        a, b = high - ratio * (high - low), low + ratio * (high - low)
        low, high = (low, b) if loss(a) < loss(b) else (a, high)
    return math.exp((low + high) / 2)


def fixed_size_walk(
    model: nn.Module, images: Tensor, labels: Tensor, *, rho: float, overshoot: float, n_steps: int
) -> Tensor:
    """The published explanation, image by image, along the cross-entropy gradient."""
    deltas = []
    for image, label in zip(images, labels, strict=True):
        delta = torch.zeros_like(image)
        for k in range(n_steps):
            step = 2 * overshoot * rho * (n_steps - k) / (n_steps * (n_steps + 1))
            if delta.square().mean().sqrt() < rho:
                leaf = (image + delta)[None].requires_grad_()
                loss = nn.functional.cross_entropy(model(leaf), label[None])
                direction = -torch.autograd.grad(loss, leaf)[0][0]
            else:
                direction = -delta
            delta = delta + step * direction / direction.square().mean().sqrt()
        deltas.append(delta)
    return torch.stack(deltas)


def polytope_distance(normals: Tensor, limits: Tensor, order: float, box: tuple[Tensor, Tensor] | None = None) -> float:
    """The smallest d, in L2 or Linf, with ``normals @ d <= limits`` and d within the box; infinite where there is none.

    L2 by Lawson and Hanson's least distance programming (a non-negative least-squares problem), Linf by the simplex.
    """
    from scipy.optimize import linprog, nnls

    a, b = normals.double().numpy(), limits.double().numpy()
    size = a.shape[1]
    if box is not None:
        low, high = (side.double().numpy() for side in box)
        a, b = np.vstack([a, np.eye(size), -np.eye(size)]), np.concatenate([b, high, -low])
    if (b >= 0).all():
        return 0.0
    if math.isinf(order):  # minimise t with -t <= d <= t
        ones, none = np.ones((size, 1)), np.zeros((len(b), 1))
        rows = np.block([[a, none], [np.eye(size), -ones], [-np.eye(size), -ones]])
        limit = np.concatenate([b, np.zeros(2 * size)])
        answer = linprog(np.eye(size + 1)[-1], A_ub=rows, b_ub=limit, bounds=(None, None))
        return float(answer.fun) if answer.status == 0 else math.inf
    stacked, aim = np.vstack([-a.T, -b[None]]), np.eye(size + 1)[-1]
    multipliers, residual = nnls(stacked, aim, maxiter=10_000)
    gap = stacked @ multipliers - aim
    return float(np.linalg.norm(gap[:-1] / gap[-1])) if residual > 1e-9 else math.inf


def linear_distance(
    model: nn.Linear,
    image: Tensor,
    classes: list[tuple[int, list[int]]],
    order: float,
    bounds: tuple[float, float] | None,
) -> float:
    """The nearest point of a linear model where, for one of ``classes``, its logit is at least those of the others.

    ``[(j, [y]) for j != y]`` is misclassification of y, ``[(t, all others)]`` is reaching t.
    """
    weight, logits = model.weight.detach(), model(image).detach()
    box = None if bounds is None else (bounds[0] - image, bounds[1] - image)
    found = [
        polytope_distance(weight[others] - weight[winner], logits[winner] - logits[others], order, box)
        for winner, others in classes
    ]
    return min(found)


def published_training_attack(
    model: nn.Module, images: Tensor, labels: Tensor, *, rho: float, n_steps: int, minimal: bool
) -> Tensor:
    """The published attack of a training batch, in the mode that the model is in (its running averages move).

    Image by image but for the model's own run on the batch, along the gradient of the batch's cross entropy. Minimal:
    back toward the image once misclassified, and of all that were the smallest, else the clean image.
    """

    def size(delta: Tensor) -> float:
        return float(delta.square().mean().sqrt())

    deltas = [torch.zeros_like(image) for image in images]
    smallest: list[Tensor | None] = [None for _ in images]
    for k in range(n_steps + 1):
        leaf = torch.stack([image + delta for image, delta in zip(images, deltas, strict=True)]).requires_grad_()
        logits = model(leaf)
        (slopes,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), leaf)
        step = 2 * rho * (n_steps - k) / (n_steps * (n_steps + 1))  # 0 at the last evaluation
        for i, slope in enumerate(slopes):
            wrong = int(logits[i].argmax()) != int(labels[i])
            so_far = smallest[i]
            if wrong and (so_far is None or size(deltas[i]) < size(so_far)):
                smallest[i] = deltas[i]
            turns_back = wrong if minimal else size(deltas[i]) >= rho
            direction = -deltas[i] if turns_back else slope
            if size(direction) > 0:
                deltas[i] = deltas[i] + step * direction / size(direction)
    if not minimal:
        return torch.stack([image + delta for image, delta in zip(images, deltas, strict=True)])
    return torch.stack([image if d is None else image + d for image, d in zip(images, smallest, strict=True)])
