"""What a search works on: images that do not meet the criterion yet, and the model, run and differentiated there."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import RowwiseModel, gradient
from captum_lipschitz._typing import Model
from captum_lipschitz.criteria import Criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, rowwise
from captum_lipschitz.objectives import Objective, logit


class Evaluation(NamedTuple):
    """The criterion's value (N,), and what was to be differentiated: its value (N,) and gradient (N, ...)."""

    value: Tensor
    followed: Tensor
    gradient: Tensor


class Problem:
    """A batch of images that do not meet the criterion yet: what a search works on.

    Args:
        model: see the attributes, as are the others.
        inputs: (N, ...).
        labels: (N,), or as the criterion has them.
        criterion: the goal.
        bounds: the box, or ``None``.
        autocast: the lower precision, or ``None``.

    Attributes:
        model: maps inputs (N, ...) to logits (N, C); already in evaluation mode.
        inputs: (N, ...).
        labels: (N,), or as the criterion has them.
        criterion: the goal.
        bounds: the box that perturbed images must stay in, or ``None``.
        autocast: run the model in this lower precision, or ``None``; logits and gradients come in the inputs' own.
    """

    def __init__(
        self,
        model: Model,
        inputs: Tensor,
        labels: Tensor,
        criterion: Criterion,
        bounds: Bounds | None = None,
        *,
        autocast: torch.dtype | None = None,
    ) -> None:
        self.model = model
        self.inputs = inputs
        self.labels = labels
        self.criterion = criterion
        self.bounds = bounds
        self.autocast = autocast

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, index: Tensor) -> Problem:
        """The same problem for a selection of its images, any of them as often as wanted."""
        model = self.model.rows(index) if isinstance(self.model, RowwiseModel) else self.model
        inputs, labels, criterion = self.inputs[index], self.labels[index], self.criterion.rows(index)
        return Problem(model, inputs, labels, criterion, self.bounds, autocast=self.autocast)

    def between(self, start: int, stop: int) -> Problem:
        """The same problem for its images from ``start`` to ``stop``; itself where these are all."""
        if (start, stop) == (0, len(self)):
            return self
        return self.rows(torch.arange(start, stop, device=self.inputs.device))

    def in_precision(self, autocast: torch.dtype | None) -> Problem:
        """The same problem with the model run in another precision."""
        return Problem(self.model, self.inputs, self.labels, self.criterion, self.bounds, autocast=autocast)

    def images(self, perturbations: Tensor) -> Tensor:
        """The perturbed images, clamped to the bounds: exactly what the model is run on, and what is returned."""
        images = self.inputs + perturbations
        return images if self.bounds is None else self.bounds.clamp(images)

    def box(self) -> tuple[Tensor, Tensor] | None:
        """Lower and upper limit of the perturbations, each (N, ...), or ``None`` where there are no bounds."""
        if self.bounds is None:
            return None
        return self.bounds.lower - self.inputs, self.bounds.upper - self.inputs

    def logits(self, perturbations: Tensor) -> Tensor:
        """Logits of the perturbed images, (N, C), checked, without gradient."""
        with torch.no_grad():
            return self._run(self.images(perturbations))

    def value(self, perturbations: Tensor) -> Tensor:
        """The criterion's value of the perturbed images, (N,); ``inf`` where logits are not finite. No gradient."""
        with torch.no_grad():
            logits = self._run(self.images(perturbations), finite=False)
        return _defined(self.criterion.value(logits, self.labels), logits)

    def evaluate(
        self, perturbations: Tensor, objective: Objective | None = None, *, along: Tensor | None = None
    ) -> Evaluation:
        """The criterion's value, and the gradient of ``objective``; where None, of the criterion's value itself.

        With ``along``, (N,), which of the criterion's alternatives each image follows. An image whose logits are not
        finite has the value ``inf`` and no gradient; its neighbours go on.

        Args:
            perturbations: (N, ...), in the inputs' units.
            objective: what is differentiated instead; for criteria whose labels are classes.
            along: which alternative each image follows, (N,).

        Returns:
            An ``Evaluation``: the criterion's value and what is followed, each (N,), and its gradient, (N, ...).

        Raises:
            InvalidInputError: an objective beside a criterion whose labels are not classes.
        """
        leaf = self.images(perturbations).detach().requires_grad_()
        logits = self._run(leaf, finite=False)
        value = self.criterion.value(logits, self.labels)
        if objective is not None and self.labels.dim() != 1:
            raise InvalidInputError(
                f"criterion: expected one whose labels are classes, which this attack's objective takes, got "
                f"{self.criterion}; MinimumNormAttack follows any criterion"
            )
        if objective is not None:
            followed = objective(logits, self.labels)
        elif along is not None:
            followed = logit(self.criterion.alternatives(logits, self.labels), along)
        else:
            followed = value
        slopes = gradient(followed, leaf)
        usable = torch.isfinite(slopes.flatten(1)).all(1)
        slopes = torch.where(rowwise(usable, slopes), slopes, torch.zeros_like(slopes))
        logits = logits.detach()
        return Evaluation(_defined(value.detach(), logits), _defined(followed.detach(), logits), slopes)

    def toward_alternatives(self, columns: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The clean images' values and gradients of some of the criterion's alternatives, one column after the other.

        One forward pass, and a backward pass for each column of ``columns``, (N, K): which alternative, for each image.
        Yields values, (N,), ``inf`` where an image has no such alternative, and gradients, (N, ...).
        """
        leaf = self.inputs.detach().clone().requires_grad_()
        logits = self._run(leaf)
        values = self.criterion.alternatives(logits, self.labels)
        for k in range(columns.shape[1]):
            value = logit(values, columns[:, k])
            there = torch.isfinite(value)
            yield value.detach(), gradient(torch.where(there, value, 0.0), leaf, retain_graph=True)

    def _run(self, images: Tensor, *, finite: bool = True) -> Tensor:
        """The model's logits, checked, in the images' own precision."""
        if self.autocast is None:
            return self.criterion.check_logits(self.model(images), len(self), finite=finite)
        with torch.autocast(images.device.type, dtype=self.autocast):
            logits = self.model(images)
        return self.criterion.check_logits(logits, len(self), finite=finite).to(images.dtype)


def _defined(value: Tensor, logits: Tensor) -> Tensor:
    """A criterion's value, (N,); ``inf``, which is "not met", where the logits, (N, C), are not all finite."""
    return torch.where(torch.isfinite(logits).all(1), value, torch.full_like(value, math.inf))
