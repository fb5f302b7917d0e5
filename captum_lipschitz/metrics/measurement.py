"""One batch's robustness: an attack is run, and every answer is checked against the model again."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from captum_lipschitz._memory import in_chunks
from captum_lipschitz._model import check_inputs, logits_of
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Attack, AttackResult
from captum_lipschitz.attacks.base import joined
from captum_lipschitz.criteria import Criterion
from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz.geometry import Bounds, Norm, rowwise


class AnyAttack(Protocol):
    """What ``accuracy_robustness_area`` needs of an attack; ``Attack`` and the plugins' attacks have it."""

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = ..., /
    ) -> AttackResult: ...


@dataclass(frozen=True)
class Part:
    """One batch's answers, on the CPU.

    Attributes:
        distances: (N,), float64; 0 where the clean image meets the criterion, ``inf`` where nothing was found.
        labels: classes, (N,), as ``Criterion.classes`` gives them.
        correct: (N,) bool, the clean image is decided rightly.
        gradient_evaluations: (N,) int64, spent on each image.
        num_classes: C.
    """

    distances: Tensor
    labels: Tensor
    correct: Tensor
    gradient_evaluations: Tensor
    num_classes: int


@dataclass(frozen=True)
class Measurement:
    """What is measured with what; ``run`` does one batch."""

    model: Model
    attack: AnyAttack
    criterion: Criterion
    norm: Norm
    bounds: Bounds | None
    device: torch.device | None

    def starting_from(self, images: Tensor | None) -> Measurement:
        """The same measurement, its attack free to start from these images, (M, ...), of the data."""
        if images is None or not isinstance(self.attack, Attack):
            return self
        pool = images.detach().to(self.device or images.device)
        return replace(self, attack=self.attack.starting_from(pool))

    def run(self, images: Tensor, labels: Tensor, *, start: int) -> Part:
        check_inputs(images, "images")
        labels = self.criterion.check_labels(labels, len(images))
        self.norm.check(images)
        criterion = self.criterion.rows(torch.arange(start, start + len(images)))
        device = self.device or images.device
        images, labels = images.detach().to(device), labels.to(device)
        result = self._attacked(images, labels, criterion)
        answers = torch.where(rowwise(result.found, images), result.adversarial_inputs, images)
        with settled(), no_trace(self.model, images), torch.no_grad():
            clean = logits_of(self.model, images, criterion.check_logits)
            perturbed = logits_of(self.model, answers, partial(criterion.check_logits, finite=False))
        solved = criterion.value(clean, labels) <= 0
        distances = self.norm.size((answers - images).double())
        met = (criterion.value(perturbed, labels) <= 0) & torch.isfinite(perturbed).all(1)
        holds = met & torch.isfinite(distances) & self._inside(answers)
        lost = int((result.found & ~holds & ~solved).sum())
        if lost:
            warnings.warn(
                f"{type(self.attack).__name__} claimed {lost} adversarial images that do not meet the criterion, or "
                "leave the bounds; they count as not found",
                CaptumLipschitzWarning,
                stacklevel=4,
            )
        distances = torch.where(result.found & holds, distances, torch.full_like(distances, math.inf))
        distances = torch.where(solved, torch.zeros_like(distances), distances)
        classes, num_classes = criterion.classes(labels, clean.shape[1])
        return Part(
            distances=distances.cpu(),
            labels=classes.cpu(),
            correct=criterion.correct(clean, labels).cpu(),
            gradient_evaluations=result.gradient_evaluations.cpu(),
            num_classes=num_classes,
        )

    def _attacked(self, images: Tensor, labels: Tensor, criterion: Criterion) -> AttackResult:
        if isinstance(self.attack, Attack):  # which cuts by itself where memory runs out
            return self.attack(self.model, images, labels, criterion)

        def attacked(start: int, stop: int) -> AttackResult:
            goal = criterion if stop - start == len(images) else criterion.rows(torch.arange(start, stop))
            with settled(), no_trace(self.model, images):  # others' attacks may leave anything behind
                part, own = (_ordinary(values[start:stop]) for values in (images, labels))
                return self.attack(self.model, part, own, goal)

        name = type(self.attack).__name__
        return joined(in_chunks(attacked, len(images), what=name, device=images.device))

    def _inside(self, images: Tensor) -> Tensor:
        if self.bounds is None:
            return torch.ones(len(images), dtype=torch.bool, device=images.device)
        return (images == self.bounds.clamp(images)).flatten(1).all(1)


def _ordinary(values: Tensor) -> Tensor:
    """The same, which autograd can work with where it was made in inference mode."""
    return values.clone() if values.is_inference() else values
