"""A way to the criterion that needs no gradient: toward another image that meets it already."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.geometry import Norm, rowwise

_HALVINGS = 20


def nearest_solved(problem: Problem, images: Tensor | None, norm: Norm) -> tuple[Tensor, Tensor]:
    """For each image the nearest other one that meets its criterion, and the boundary on the straight way there.

    Forward passes only: one for each other image, then a bisection.

    Args:
        problem: N images.
        images: images of the data to go to, (M, ...), or ``None``; beside them four made from each image itself: its
            mirrored values, and flat ones at its smallest, mean and largest value (those of the bounds, where there
            are any).
        norm: what nearest means.

    Returns:
        Perturbations, (N, ...), zero where none of them meets the criterion, and where one does, (N,) bool.
    """
    ends = torch.zeros_like(problem.inputs)
    nearest = torch.full_like(ends.flatten(1)[:, 0], torch.inf)
    for other in _others(problem, images):
        delta = problem.images(other - problem.inputs) - problem.inputs
        size = norm.size(delta)
        closer = (problem.value(delta) <= 0) & (size < nearest)
        ends, nearest = torch.where(rowwise(closer, delta), delta, ends), torch.where(closer, size, nearest)
    near, far = torch.zeros_like(nearest), torch.ones_like(nearest)
    for _ in range(_HALVINGS):
        middle = (near + far) / 2
        met = problem.value(rowwise(middle, ends) * ends) <= 0
        near, far = torch.where(met, near, middle), torch.where(met, middle, far)
    return rowwise(far, ends) * ends, torch.isfinite(nearest)


def _others(problem: Problem, images: Tensor | None) -> list[Tensor]:
    """Images to go to, each (N, ...) or (1, ...)."""
    inputs, flat = problem.inputs, problem.inputs.flatten(1)
    low, high = rowwise(flat.amin(1), inputs), rowwise(flat.amax(1), inputs)
    if problem.bounds is not None:
        low, high = problem.bounds.like(inputs)
    flats = [value.expand_as(inputs) for value in (low, rowwise(flat.mean(1), inputs), high)]
    fitting = images is not None and images.shape[1:] == inputs.shape[1:]  # others are of no use, and left out
    data = list(images.to(inputs).split(1)) if images is not None and fitting else []
    return [*data, low + high - inputs, *flats]
