"""What every attack shares: checks before, verification after, and a search in between that a subclass supplies."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._memory import in_chunks
from captum_lipschitz._model import RowwiseModel, check_inputs, gradient
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, as_norm, rowwise
from captum_lipschitz.objectives import Objective, logit

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


def _defined(value: Tensor, logits: Tensor) -> Tensor:
    """A criterion's value, (N,); ``inf``, which is "not met", where the logits, (N, C), are not all finite."""
    return torch.where(torch.isfinite(logits).all(1), value, torch.full_like(value, math.inf))


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
