"""When an attack has reached its goal: a signed value per image, met where it is at most 0."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from captum_lipschitz._model import check_label_sets, check_labels, check_logits
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.objectives import log_odds, logit, margin, without_label


class Criterion(ABC):
    """A per-image test of the logits. Its zero level is the boundary that minimal attacks look for.

    Labels are classes, (N,), and an image is right where the label is the argmax, unless a subclass says otherwise:
    it then overrides ``check_labels``, ``check_logits``, ``correct``, ``classes`` and ``alternatives`` together.
    """

    @abstractmethod
    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Signed value, (N,), from logits (N, C) and labels (N,): met where ``value <= 0``; differentiable."""

    def alternatives(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Ways to meet the criterion, (N, A): each a signed value that is enough where at most 0; differentiable.

        Minimal attacks search along several and keep the nearest answer. ``inf`` where an image has no such way. A
        criterion with a single way, which is the default, is its own alternative.
        """
        return self.value(logits, labels)[:, None]

    def rows(self, index: Tensor) -> Criterion:
        """The criterion for a selection of the batch's images; override where it carries one entry per image."""
        del index
        return self

    def validate(self, num_images: int, num_classes: int) -> None:
        """Raise ``InvalidInputError`` where the criterion does not fit a model; override where it can be so."""
        del num_images, num_classes

    def check_labels(self, labels: object, num_images: int, num_classes: int | None = None) -> Tensor:
        """Labels that this criterion can judge, as int64, or an exception; against C once it is known.

        Args:
            labels: what the user gave.
            num_images: N.
            num_classes: C, where it is known.

        Returns:
            (N,) int64, or the shape that a subclass has them in.

        Raises:
            InvalidInputError, InvalidTypeError: for others.
        """
        return check_labels(labels, num_images, num_classes)

    def check_logits(self, logits: object, num_images: int, *, finite: bool = True) -> Tensor:
        """A model's output that this criterion can judge, (N, C), or an exception.

        Args:
            logits: what the model returned.
            num_images: N.
            finite: refuse values that are not finite.

        Returns:
            The logits, (N, C).

        Raises:
            ModelOutputError: for what is none.
        """
        return check_logits(logits, num_images, finite=finite)

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Which images the model decides rightly, (N,) bool: what clean accuracy counts."""
        return logits.argmax(1) == labels

    def classes(self, labels: Tensor, num_outputs: int) -> tuple[Tensor, int]:
        """What accuracy of guessing is told from: each image's class, (N,), and the number of classes."""
        return labels, num_outputs

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class Misclassified(Criterion):
    """The label is no longer the argmax ("attack" in the paper): ``z_y - max_j z_j <= 0``.

    Where both are equal the argmax decides, as it does for accuracy: the value is a hair above 0 where it is the label.
    Values are in the logits' units (nats).

    Example:
        >>> Misclassified().value(torch.tensor([[2.0, 0.5], [0.0, 1.0]]), torch.tensor([0, 0]))
        tensor([ 1.5000, -1.0000])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (attack ARA).
    """

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        difference = margin(logits, labels)
        kept_tie = (difference == 0) & (logits.argmax(1) == labels)
        return torch.where(kept_tie, difference + torch.finfo(difference.dtype).tiny, difference)

    def alternatives(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The label's margin to each other class, ``z_y - z_j``."""
        return _margins(logits, labels)


class BelowChance(Criterion):
    """The label's softmax probability is at most 1 / C ("better than random", BTR, in the paper).

    The value is ``z_y - logsumexp_j z_j + log(C - 1)`` of ``z = logits / temperature``. Unlike ``Misclassified`` it
    depends on the logits' scale; at a temperature fitted on other images (``fit_temperature``) it does not.

    Args:
        temperature: what logits are divided by, above 0; 1 leaves them as they are.

    Raises:
        InvalidTypeError, InvalidInputError: a temperature that is no number, not above 0, or not finite.

    Example:
        >>> logits, labels = torch.tensor([[0.0, 0.5, -9.0]]), torch.tensor([0])
        >>> bool(BelowChance().value(logits, labels) <= 0), BelowChance(temperature=0.25)
        (False, BelowChance(temperature=0.25))
        >>> bool(BelowChance(temperature=0.25).value(logits, labels) <= 0)
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("BTR"); Guo et al. 2017, arXiv 1706.04599 (temperature).
    """

    def __init__(self, *, temperature: float = 1.0) -> None:
        if not isinstance(temperature, (int, float)):
            raise InvalidTypeError(f"temperature: expected a number, got {temperature!r}")
        if not 0 < temperature < math.inf:
            raise InvalidInputError(f"temperature: expected a finite number above 0, got {temperature}")
        self.temperature = float(temperature)

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        return log_odds(logits / self.temperature, labels) + math.log(logits.shape[1] - 1)

    def alternatives(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A single class's lead that is enough by itself, ``z_y - z_j + log(C - 1)``, for each other class."""
        return _margins(logits / self.temperature, labels) + math.log(logits.shape[1] - 1)

    def __repr__(self) -> str:
        return "BelowChance()" if self.temperature == 1 else f"BelowChance(temperature={self.temperature!r})"


class Reaches(Criterion):
    """``target`` has become the argmax: ``max_j z_j - z_target <= 0`` over the other classes.

    Args:
        target: one class for all images, or a tensor of one class per image, (N,).

    Raises:
        InvalidTypeError: a target that is neither a class nor one class per image.

    Example:
        >>> Reaches(1).value(torch.tensor([[2.0, 0.5, -1.0]]), torch.tensor([0]))
        tensor([1.5000])
    """

    def __init__(self, target: int | Tensor) -> None:
        self.target = torch.as_tensor(target)
        if self.target.is_floating_point() or self.target.dim() > 1:
            raise InvalidTypeError(f"target: expected a class or one class per image, got {target!r}")

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        del labels
        target = self.target.to(logits.device).expand(len(logits)).clone()  # no inference tensor, outside that mode
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


class LabelFlips(Criterion):
    """A label of several is decided wrongly: ``(2 y_k - 1) z_k <= 0``; label k is decided to be there where z_k > 0.

    Labels are (N, K) of 1 (there), 0 (not there) and -1 (unknown), logits are (N, K), K at least 1. At ``z_k = 0`` the
    decision is "not there", so the value is a hair above 0 where that is right.

    Args:
        label: the label k that must flip, from 0; ``None`` for whichever known label flips first,
            ``min over known k of (2 y_k - 1) z_k``.

    Raises:
        InvalidTypeError, InvalidInputError: a label that is no whole number from 0.

    Example:
        >>> logits, labels = torch.tensor([[2.0, -1.0, 5.0]]), torch.tensor([[1, 0, -1]])
        >>> LabelFlips(label=0).value(logits, labels), LabelFlips().value(logits, labels)
        (tensor([2.]), tensor([1.]))

    References:
        Song et al. 2018, "Multi-label adversarial perturbations", arXiv 1901.00546.
    """

    def __init__(self, label: int | None = None) -> None:
        if label is not None and (not isinstance(label, int) or isinstance(label, bool)):
            raise InvalidTypeError(f"label: expected a whole number or None, got {label!r}")
        if label is not None and label < 0:
            raise InvalidInputError(f"label: expected a whole number from 0, got {label}")
        self.label = label

    def value(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.alternatives(logits, labels).amin(1)

    def alternatives(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Each known label's evidence, ``(2 y_k - 1) z_k``; for one label, its own."""
        known = labels >= 0
        evidence = torch.where(labels > 0, logits, -logits)
        kept_tie = (labels == 0) & (logits == 0)
        evidence = torch.where(kept_tie, evidence + torch.finfo(evidence.dtype).tiny, evidence)
        evidence = torch.where(known, evidence, torch.full_like(evidence, math.inf))
        return evidence if self.label is None else evidence[:, self.label : self.label + 1]

    def check_labels(self, labels: object, num_images: int, num_classes: int | None = None) -> Tensor:
        checked = check_label_sets(labels, num_images, num_classes)
        judged = checked if self.label is None else checked[:, self.label : self.label + 1]
        if judged.shape[1] == 0:
            raise InvalidInputError(f"label: expected one of 0..{checked.shape[1] - 1}, got {self.label}")
        unknown = int((judged < 0).all(1).sum())
        if unknown:
            name = "any label" if self.label is None else f"label {self.label}"
            raise InvalidInputError(f"labels: expected {name} to be known (0 or 1), got -1 for {unknown} images")
        return checked

    def check_logits(self, logits: object, num_images: int, *, finite: bool = True) -> Tensor:
        return check_logits(logits, num_images, finite=finite, at_least=1)

    def correct(self, logits: Tensor, labels: Tensor) -> Tensor:
        return self.value(logits, labels) > 0

    def classes(self, labels: Tensor, num_outputs: int) -> tuple[Tensor, int]:
        return (labels, num_outputs) if self.label is None else (labels[:, self.label], 2)

    def __repr__(self) -> str:
        return "LabelFlips()" if self.label is None else f"LabelFlips(label={self.label})"


def _margins(logits: Tensor, labels: Tensor) -> Tensor:
    """``z_y - z_j`` for every class j, (N, C), ``inf`` for the label itself."""
    return logit(logits, labels)[:, None] - without_label(logits, labels)


_CRITERIA: dict[str, type[Criterion]] = {
    "misclassified": Misclassified,
    "below_chance": BelowChance,
    "label_flips": LabelFlips,
}


def as_criterion(criterion: Criterion | str) -> Criterion:
    """A criterion from an object or one of the names ``"misclassified"``, ``"below_chance"``, ``"label_flips"``.

    Args:
        criterion: an object, which is returned as it is, or a name.

    Returns:
        The criterion.

    Raises:
        InvalidInputError: an unknown name; the message lists those there are.
    """
    if isinstance(criterion, Criterion):
        return criterion
    if not isinstance(criterion, str) or criterion not in _CRITERIA:
        raise InvalidInputError(
            f"criterion: expected one of {sorted(_CRITERIA)} or a Criterion object, got {criterion!r}"
        )
    return _CRITERIA[criterion]()
