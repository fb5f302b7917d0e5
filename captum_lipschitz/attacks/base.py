"""What every attack shares: checks before, verification after, and a search in between that a subclass supplies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._memory import in_chunks
from captum_lipschitz._model import check_inputs
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.geometry import Bounds, Norm, as_norm, rowwise

_NUDGES = 12


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, one row per image.

    Attributes:
        adversarial_inputs: (N, ...), shaped as the inputs. The clean image where it meets the criterion already or
            where nothing was found.
        distances: (N,), size of the perturbation in the attack's norm; 0 where the clean image meets the criterion
            already, ``inf`` where nothing was found.
        found: (N,) bool: the model was run again on the adversarial image and met the criterion.
        gradient_evaluations: (N,) int64, forward-and-backward passes spent on each image.
    """

    adversarial_inputs: Tensor
    distances: Tensor
    found: Tensor
    gradient_evaluations: Tensor


class Found(NamedTuple):
    """A search's answer: perturbations (N, ...), which of them are claimed to succeed (N,), gradients spent (N,)."""

    perturbations: Tensor
    found: Tensor
    gradient_evaluations: Tensor


class Attack(ABC):
    """Base of attacks: call it with a model and images; a subclass implements ``search``.

    Args:
        norm: ``"rmse"`` (the paper's rho), ``"l2"``, ``"linf"`` or a ``Norm`` object.
        bounds: the box that adversarial images must stay in, ``(lower, upper)``; ``None``, as in the paper, for none.
    """

    def __init__(self, *, norm: Norm | str = "rmse", bounds: Bounds | tuple[float, float] | None = None) -> None:
        self.norm = as_norm(norm)
        self.bounds = Bounds.of(bounds)

    @abstractmethod
    def search(self, problem: Problem) -> Found:
        """Look for perturbations of images none of which meets the criterion. Claims are verified by the caller."""

    def starting_from(self, images: Tensor) -> Attack:
        """This attack, free to start from images of the data, (M, ...), too; for one that has no use for them, itself.

        An answer depends on them, so whoever measures passes the same images for every batch.
        """
        del images
        return self

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = "misclassified"
    ) -> AttackResult:
        """Attack every image that does not meet the criterion already.

        Args:
            model: maps (N, ...) to logits (N, C). A module is run in evaluation mode and left as it was; modules behind
                a function must be in evaluation mode already.
            inputs: floating, finite, (N, ...), within ``bounds`` where there are any.
            labels: integer classes, (N,); for ``LabelFlips`` 0, 1 and -1 (unknown), (N, K).
            criterion: when an image is solved: ``"misclassified"``, ``"below_chance"`` or a ``Criterion`` object.

        Returns:
            An ``AttackResult``. Every finite distance belongs to an image that the model was run on once more.

        Raises:
            InvalidInputError, InvalidTypeError: for inputs, labels or a criterion that cannot be used.
            ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.
            RuntimeError, MemoryError: out of memory with a single image.

        Warns:
            CaptumLipschitzWarning: out of memory. The images are then attacked in chunks of half as many, and half of
                those again, each chunk from its beginning: its answer is that of a call with these images alone.
        """
        inputs = check_inputs(inputs).detach()
        goal = as_criterion(criterion)
        labels = goal.check_labels(labels, len(inputs)).to(inputs.device)
        self.norm.check(inputs)
        if self.bounds is not None:
            self.bounds.check(inputs)
            self.bounds.check_shared(inputs)
        with settled(), no_trace(model, inputs):
            if inputs.is_inference():
                inputs = inputs.clone()
            whole = Problem(model, inputs, labels, goal, self.bounds)
            answers = in_chunks(
                lambda start, stop: self._attack(whole.between(start, stop)),
                len(inputs),
                what=type(self).__name__,
                device=inputs.device,
            )
        return joined(answers)

    def _attack(self, problem: Problem) -> AttackResult:
        """The answers for images that fit into memory together."""
        inputs = problem.inputs
        open_rows = _unsolved(problem).nonzero().squeeze(1)
        perturbations = torch.zeros_like(inputs)
        found = torch.ones(len(inputs), dtype=torch.bool, device=inputs.device)
        spent = torch.zeros(len(inputs), dtype=torch.int64, device=inputs.device)
        if len(open_rows):
            answer = self.search(problem.rows(open_rows))
            perturbations[open_rows] = answer.perturbations.detach()
            found[open_rows] = answer.found
            spent[open_rows] = answer.gradient_evaluations
            perturbations, found = verified(problem, perturbations, found, open_rows)
        return self._result(problem, perturbations, found, spent)

    def _result(self, problem: Problem, perturbations: Tensor, found: Tensor, spent: Tensor) -> AttackResult:
        perturbations = torch.where(rowwise(found, perturbations), perturbations, torch.zeros_like(perturbations))
        adversarial_inputs = problem.images(perturbations)
        distances = self.norm.size(adversarial_inputs - problem.inputs)
        return AttackResult(
            adversarial_inputs=adversarial_inputs,
            distances=torch.where(found, distances, torch.full_like(distances, math.inf)),
            found=found,
            gradient_evaluations=spent,
        )


def joined(results: Sequence[AttackResult]) -> AttackResult:
    """Results for one batch's chunks, at least one, as one."""
    if len(results) == 1:
        return results[0]
    columns = zip(*(tuple(vars(result).values()) for result in results), strict=True)
    return AttackResult(*(torch.cat(column) for column in columns))


def verified(problem: Problem, perturbations: Tensor, claimed: Tensor, open_rows: Tensor) -> tuple[Tensor, Tensor]:
    """Run the model on the whole batch again and keep the claims that hold.

    An answer on the very boundary may fall back across it by rounding (another batch shape, another kernel): such a
    row is moved outward, by at most half a percent, until it holds.

    Returns:
        The perturbations, (N, ...), and which of them meet the criterion, (N,).
    """
    nudge = 1e-6
    for _ in range(_NUDGES):
        met = problem.value(perturbations) <= 0
        failing = open_rows[claimed[open_rows] & ~met[open_rows]]
        if not len(failing):
            break
        perturbations[failing] *= 1 + nudge
        nudge *= 2
    else:
        met = problem.value(perturbations) <= 0
    solved_before = torch.ones_like(claimed)
    solved_before[open_rows] = False
    return perturbations, solved_before | (claimed & met)


def _unsolved(problem: Problem) -> Tensor:
    """Which clean images do not meet the criterion yet, (N,). The model's first run: where it is found wanting."""
    logits = problem.logits(torch.zeros_like(problem.inputs))
    problem.criterion.check_labels(problem.labels, len(problem), logits.shape[1])
    problem.criterion.validate(len(problem), logits.shape[1])
    first = torch.zeros(1, dtype=torch.int64, device=problem.inputs.device)
    problem.rows(first).evaluate(torch.zeros_like(problem.inputs[:1]))
    return ~(problem.criterion.value(logits, problem.labels) <= 0)
