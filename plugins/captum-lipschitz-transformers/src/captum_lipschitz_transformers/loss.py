"""The Trainer's loss of a batch with the penalty in it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from transformers import Trainer

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.training import LastStep, LipschitzRegularizer, StepRegularizer
from captum_lipschitz.training.processes import process_rank
from captum_lipschitz_transformers.batch import input_name_of, labels_of
from captum_lipschitz_transformers.scale import LossScale

HostLoss = Callable[[dict[str, Any], Tensor | None], tuple[Tensor, Any]]
"""The Trainer's own ``compute_loss`` of a batch and of the step's number of items: loss and outputs."""


class RegularizedLoss:
    """Adds the penalty to what ``Trainer.compute_loss`` returns, with the factor that the batch's loss has.

    The Trainer sums the losses of an optimiser step's micro-batches, each divided by the number of items in all of them
    where the model or ``compute_loss_func`` accepts ``num_items_in_batch``, and otherwise divides each mean by the
    number of micro-batches; ``LossScale`` tells which. The penalty is weighted as the batch's loss is, and the
    controller sees the mean loss.

    Args:
        regularizer: the one to add; its ``accumulation_steps`` is set as the trainer accumulates.
        input_name: the batch's entry that the penalty is about; ``None`` for the model's main input.
        labels: the batch's entry that has the labels; ``None`` for the trainer's only label name.

    Attributes:
        network: the model without what the trainer wrapped around it, ``None`` before the first batch.
        task_loss: the last batch's mean loss without the penalty.

    Raises:
        InvalidTypeError: for settings of another type.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self, regularizer: LipschitzRegularizer, *, input_name: str | None = None, labels: str | None = None
    ) -> None:
        if not isinstance(regularizer, LipschitzRegularizer):
            raise InvalidTypeError(f"lipschitz: expected a LipschitzRegularizer, got {type(regularizer).__name__}")
        for name, value in (("lipschitz_input", input_name), ("lipschitz_labels", labels)):
            if value is not None and not isinstance(value, str):
                raise InvalidTypeError(f"{name}: expected a key of the batch or None, got {type(value).__name__}")
        self.regularizer = regularizer
        self.network: nn.Module | None = None
        self.task_loss: Tensor | None = None
        self.seeded = False
        self._made = copy.deepcopy(regularizer.state_dict())
        self._scale = LossScale(multi_label=regularizer.multi_label)
        self._named_input = input_name
        self._named_labels = labels
        self._step: StepRegularizer | None = None

    @property
    def last(self) -> LastStep | None:
        """What the last batch ran, or ``None``."""
        return self._step.last if self._step is not None else None

    def begin(self, trainer: Trainer) -> None:
        """Training begins, or goes on: what was left of an optimiser step is dropped, and processes draw apart."""
        self.regularizer.accumulation_steps = 1 if trainer.args.gradient_accumulation_steps == 1 else None
        if not self.seeded and process_rank() > 0:
            generator = self.regularizer.generator
            generator.manual_seed(generator.initial_seed() + process_rank())
        self.seeded = True
        self._scale.begin()
        self.regularizer.load_state_dict(self.regularizer.state_dict())

    def restart(self) -> None:
        """The model is a new one: the regularizer's state is that which it was given with."""
        self.regularizer.load_state_dict(copy.deepcopy(self._made))
        self.seeded = False

    def compute(
        self, trainer: Trainer, network: nn.Module, batch: Mapping[str, Any], items: Any, host: HostLoss
    ) -> tuple[Tensor, Any]:
        """Loss with penalty, and the model's outputs.

        Args:
            trainer: whose settings say what the loss was divided by.
            network: the model without what the trainer wrapped around it.
            batch: the model's keywords.
            items: the Trainer's ``num_items_in_batch``.
            host: the loss without a penalty.

        Raises:
            InvalidInputError, InvalidTypeError: the batch has no floating inputs or no labels.
            UnsupportedLossError: it cannot be told what the loss was divided by.
            UnsupportedTrainingError: the loss was not computed from the logits, (N, C), of one call.
        """
        name = input_name_of(batch, network, self._named_input, trainer.label_names)
        labels = labels_of(batch, trainer.label_names, self._named_labels)
        if self._step is None or self.network is not network:
            networks = {type(network).__name__: network}
            self._step = StepRegularizer(self.regularizer, networks, step="compute_loss")
            self.network = network
        given = {name: batch[name], **{key: value for key, value in batch.items() if key != name}}
        counted = batch.get("labels")
        watched = self._scale.watched(items)
        with self._step.watching(batch[name]):
            loss, outputs = host(given, watched)
        factor = self._scale.factor(trainer, loss, outputs, counted, labels, watched)
        mean = loss / factor
        self.task_loss = mean.detach()
        return self._step.add_penalty(mean, labels) * factor, outputs
