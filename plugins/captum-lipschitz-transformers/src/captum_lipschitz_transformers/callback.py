"""The callback that follows a regularised Trainer: optimiser steps, and the figures that are logged."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnsupportedTrainingError
from captum_lipschitz.metrics import margin_radius
from captum_lipschitz.training.processes import number_of_processes
from captum_lipschitz_transformers.logits import without_autocast
from captum_lipschitz_transformers.loss import RegularizedLoss
from captum_lipschitz_transformers.refusals import refuse_unsupported


class LipschitzTrainerCallback(TrainerCallback):
    """Tells the regularizer of each optimiser step, and gathers the figures that the Trainer logs.

    A regularised Trainer adds it by itself. Alone it regularises nothing, as a callback sees neither the loss nor the
    batch, and says so when training begins.

    With each training loss are logged: ``lipschitz_penalty``, ``lipschitz_strength`` and ``lipschitz_task_loss`` (the
    loss without the penalty) of the step's last micro-batch, in the mean over processes, and
    ``lipschitz_median_radius``, see ``margin_radius``: an estimate of the median distance to the decision boundary
    after the step, in RMSE, 0 where images are misclassified; not for several labels.

    Args:
        loss: what the Trainer's ``compute_loss`` goes through; ``None`` if there is none.
        radius_every: least number of optimiser steps from one radius to the next, at least 1, ``None`` for none. It is
            computed where the Trainer logs, and costs about a plain step.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.
        UnsupportedTrainingError: when training begins, where the penalty's gradient would not be right.
    """

    def __init__(self, loss: RegularizedLoss | None = None, *, radius_every: int | None = 50) -> None:
        if loss is not None and not isinstance(loss, RegularizedLoss):
            raise InvalidTypeError(f"loss: expected a RegularizedLoss, got {type(loss).__name__}")
        if radius_every is not None and radius_every < 1:
            raise InvalidInputError(f"lipschitz_radius_every: expected at least 1 or None, got {radius_every}")
        self.radius_every = radius_every
        self._loss = loss
        self._trainer: Trainer | None = None
        self._figures: dict[str, float] = {}
        self._radius_step: int | None = None

    def set_trainer(self, trainer: Trainer) -> None:
        """Follow this trainer, whose ``compute_loss`` goes through the callback's loss."""
        self._trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._loss is None or self._trainer is None:
            raise UnsupportedTrainingError(
                "LipschitzTrainerCallback: a callback alone sees neither loss nor batch and regularises nothing; use "
                "LipschitzTrainer(..., lipschitz=LipschitzRegularizer(strength=...)), which adds the callback, or "
                "regularize_trainer(trainer, regularizer)"
            )
        trainer = self._trainer
        refuse_unsupported(trainer, self._loss.regularizer)
        self._loss.begin(trainer)
        self._figures, self._radius_step = {}, None

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._loss is not None:
            self._loss.regularizer.step()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if control.should_log:
            self._gather(state)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if control.should_log:
            self._gather(state)

    def take_figures(self) -> dict[str, float]:
        """The figures of the last step that is logged, once."""
        figures, self._figures = self._figures, {}
        return figures

    def _gather(self, state: TrainerState) -> None:
        """All processes are here at the same step, so that they can exchange what they have."""
        last = self._loss.last if self._loss is not None else None
        if self._loss is None or self._loss.task_loss is None or last is None:
            return
        figures = [last.output.penalty, last.output.strength, self._loss.task_loss]
        mean = _mean(torch.stack([figure.double().to(last.inputs.device) for figure in figures]))
        names = ("lipschitz_penalty", "lipschitz_strength", "lipschitz_task_loss")
        self._figures = dict(zip(names, mean.tolist(), strict=True))
        wanted = self.radius_every is not None and not self._loss.regularizer.multi_label
        before = self._radius_step
        if wanted and (before is None or state.global_step - before >= (self.radius_every or 1)):
            self._radius_step = state.global_step
            self._figures["lipschitz_median_radius"] = self._median_radius(self._loss)

    def _median_radius(self, loss: RegularizedLoss) -> float:
        last = loss.last
        if last is None or loss.network is None:
            return float("nan")
        labels = last.labels.argmax(1) if last.labels.dim() == 2 else last.labels
        with without_autocast(loss.network):
            radii = margin_radius(last.network, last.inputs, labels).double()
        if number_of_processes() > 1:
            everyone: list[Any] = [None] * number_of_processes()
            distributed.all_gather_object(everyone, radii.cpu())  # batches may differ in size
            radii = torch.cat(everyone)
        return float(radii.median())


def refuse_second(callbacks: Iterable[Any]) -> None:
    """Raise where a user gives a ``LipschitzTrainerCallback`` to a regularised trainer, which adds its own.

    Args:
        callbacks: instances, or classes.

    Raises:
        UnsupportedTrainingError: there is one among them.
    """
    for callback in callbacks:
        if isinstance(callback, LipschitzTrainerCallback) or callback is LipschitzTrainerCallback:
            raise UnsupportedTrainingError(
                "callbacks: expected no LipschitzTrainerCallback, as a regularised trainer has added its own already; "
                "leave it out"
            )


def _mean(figures: Tensor) -> Tensor:
    if number_of_processes() > 1:
        distributed.all_reduce(figures)
        figures /= number_of_processes()
    return figures
