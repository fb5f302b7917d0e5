"""What a model decides about examples, as an attack sees it: logits of their features, labels, and a criterion."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import RowwiseModel, check_logits
from captum_lipschitz.attr._packing import Packed
from captum_lipschitz.attr._targets import OBJECTIVES, classes, columns, not_a_tensor, precise
from captum_lipschitz.attr._walk import Forward
from captum_lipschitz.criteria import Criterion, LabelFlips, Reaches, as_criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.objectives import logit

CRITERIA = ("misclassified", "below_chance", "reaches")


class Decision(NamedTuple):
    """What an attack is given: the model of features (N, features), the labels (N,) or (N, 1), and the goal."""

    model: FeatureModel
    labels: Tensor
    criterion: Criterion

    def value(self, features: Tensor) -> Tensor:
        """The criterion's value, (N,), where the features have become these; no gradient."""
        with torch.no_grad():
            return self.criterion.value(self.model(features), self.labels)


class FeatureModel(RowwiseModel):
    """A model as a function of examples' features, with whatever else belongs to those examples.

    Args:
        run: the model's output for a batch whose features have become others.
        batch: the examples. Where their mask is zero, the model sees them unchanged.
        column: which of its outputs decides about an example, (N,), or ``None`` where all do.
        threshold: what is taken from that output.
    """

    def __init__(self, run: Forward, batch: Packed, column: Tensor | None = None, threshold: float = 0.0) -> None:
        self._run = run
        self._batch = batch
        self._column = column
        self._threshold = threshold

    def __call__(self, inputs: Tensor, /) -> Tensor:
        batch = self._batch
        seen = inputs if batch.mask is None else torch.where(batch.mask, inputs, batch.features)
        output = self._run(batch, seen)
        if not isinstance(output, Tensor):
            raise not_a_tensor(output)
        if self._column is None:
            return precise(output)
        return precise(logit(output.reshape(len(batch), -1), self._column))[:, None] - self._threshold

    def rows(self, index: Tensor) -> FeatureModel:
        column = None if self._column is None else self._column[index]
        return FeatureModel(self._run, self._batch.rows(index), column, self._threshold)


def decision_about(
    run: Forward, batch: Packed, *, criterion: Criterion | str, objective: str, threshold: float
) -> Decision:
    """What is decided about a batch: a class among several, or on which side of a threshold an output is."""
    if isinstance(criterion, str) and criterion not in CRITERIA:
        raise InvalidInputError(f"criterion: expected one of {CRITERIA} or a Criterion object, got {criterion!r}")
    if objective not in OBJECTIVES:
        raise InvalidInputError(f"objective: expected one of {OBJECTIVES}, got {objective!r}")
    with torch.no_grad():
        output = run(batch, batch.features.clone())  # the model may change what it is given
    if not isinstance(output, Tensor):
        raise not_a_tensor(output)
    if objective == "log_odds" or (objective == "auto" and output.dim() == 2 and output.shape[1] > 1):
        logits = check_logits(output, len(batch))
        if threshold != 0:
            raise InvalidInputError(
                f"threshold: expected 0 where the outputs are classes, got {threshold}; with objective='output' the "
                "target's output is taken by itself"
            )
        if criterion == "reaches" and batch.target is None:
            raise InvalidInputError("target: expected the class to reach, got None, which is the model's own decision")
        labels = logits.argmax(1) if batch.target is None else classes(batch.target, logits)
        goal = Reaches(labels) if criterion == "reaches" else as_criterion(criterion)
        return Decision(FeatureModel(run, batch), labels, goal)
    if criterion != "misclassified":
        raise InvalidInputError(
            f"criterion: expected classes for {criterion!r}; a single output can only cross its threshold"
        )
    column = columns(output, batch.target, len(batch), multi_label=objective == "multi_label")
    model = FeatureModel(run, batch, column, threshold)
    with torch.no_grad():
        there = model(batch.features.clone()) > 0
    return Decision(model, there.long(), LabelFlips(0))
