"""When an attack has reached its goal: a signed value per image, met where it is at most 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.objectives import log_odds, logit, margin, without_label


class Criterion(ABC):
    """A per-image test of the logits. Its zero level is the boundary that minimal attacks look for."""

    @abstractmethod
    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Signed value, (N,), from logits (N, C) and labels (N,): met where ``value <= 0``; differentiable."""

    def rows(self, index: Tensor) -> Criterion:
        """The criterion for a selection of the batch's images; override where it carries one entry per image."""
        del index
        return self

    def validate(self, num_images: int, num_classes: int) -> None:
        """Raise ``InvalidInputError`` where the criterion does not fit a model; override where it can be so."""
        del num_images, num_classes

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Misclassified(Criterion):
    """The label is no longer the argmax ("attack" in the paper): ``z_y - max_j z_j <= 0``.

    Where both are equal the argmax decides, as it does for accuracy: the value is a hair above 0 where it is the label.
    """

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        difference = margin(logits, labels)
        kept_tie = (difference == 0) & (logits.argmax(1) == labels)
        return torch.where(kept_tie, difference + torch.finfo(difference.dtype).tiny, difference)


class BelowChance(Criterion):
    """The label's softmax probability is at most 1 / C ("better than random", BTR, in the paper).

    The value is ``z_y - logsumexp_j z_j + log(C - 1)``. Unlike ``Misclassified`` it depends on the logits' scale.
    """

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        return log_odds(logits, labels) + math.log(logits.shape[1] - 1)


class Reaches(Criterion):
    """``target`` has become the argmax: ``max_j z_j - z_target <= 0`` over the other classes.

    Args:
        target: one class for all images, or a tensor of one class per image, (N,).
    """

    def __init__(self, target: int | Tensor) -> None:
        self.target = torch.as_tensor(target)
        if self.target.is_floating_point() or self.target.dim() > 1:
            raise InvalidTypeError(f"target: expected a class or one class per image, got {target!r}")

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        del labels
        target = self.target.to(logits.device).expand(len(logits))
        return without_label(logits, target).amax(1) - logit(logits, target)

    def rows(self, index: Tensor) -> Reaches:
        if self.target.dim() == 0:
            return self
        if int(index.max()) >= len(self.target):
            raise InvalidInputError(
                f"target: expected one class for each image, got {len(self.target)} for more images"
            )
        return Reaches(self.target.to(index.device)[index])

    def validate(self, num_images: int, num_classes: int) -> None:
        if self.target.dim() == 1 and len(self.target) != num_images:
            raise InvalidInputError(
                f"target: expected one class for each of {num_images} images, got {len(self.target)}"
            )
        if int(self.target.min()) < 0 or int(self.target.max()) >= num_classes:
            raise InvalidInputError(f"target: expected classes in 0..{num_classes - 1}, got {self.target.tolist()}")

    def __repr__(self) -> str:
        return f"Reaches({self.target.tolist()})"


_CRITERIA: dict[str, type[Criterion]] = {"misclassified": Misclassified, "below_chance": BelowChance}


def as_criterion(criterion: Criterion | str) -> Criterion:
    """A criterion from an object or one of the names ``"misclassified"``, ``"below_chance"``."""
    if isinstance(criterion, Criterion):
        return criterion
    if not isinstance(criterion, str) or criterion not in _CRITERIA:
        raise InvalidInputError(
            f"criterion: expected one of {sorted(_CRITERIA)} or a Criterion object, got {criterion!r}"
        )
    return _CRITERIA[criterion]()
