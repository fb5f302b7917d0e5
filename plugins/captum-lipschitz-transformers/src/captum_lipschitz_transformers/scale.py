"""What a host's loss was divided by: the number of items in an optimiser step, or that in the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import Trainer

from captum_lipschitz.errors import UnsupportedLossError

_IGNORED = -100  # the label that Hugging Face's losses leave out
_NEAR = 0.05  # a share of the loss: what label smoothing and class weights change it by may be more
_WHOLE = 0.01  # as above, for a loss in bfloat16, which rounds to 1/256
_EQUAL = 1e-3
_WHAT_TO_DO = (
    "set loss_is_scaled_for_ga on the trainer, to True if the loss is divided by num_items_in_batch and to False if it "
    "is the batch's mean, and smooth labels by TrainingArguments(label_smoothing_factor=...) rather than in the model"
)


class LossScale:
    """Tells what a batch's mean loss was multiplied by in the loss that the Trainer computed.

    The Trainer gives the number of items to models that take any keyword and to ``compute_loss_func``, and cannot know
    whether they use it. Here the loss is computed with a number that has a gradient: where the loss has one with
    respect to it, it was divided by it, whatever loss it is. Where it has none, the batch's mean was taken, or the
    number was made a plain one before it divided. These are told apart by the cross entropy of the logits, once in a
    training, and refused where that is near neither.

    Args:
        multi_label: whether the labels are several for an image.
    """

    def __init__(self, *, multi_label: bool) -> None:
        self._multi_label = multi_label
        self._whole = False
        self._plain_is_normalised: bool | None = None

    def begin(self) -> None:
        """Training begins, with a loss that may be another."""
        self._whole, self._plain_is_normalised = False, None

    def watched(self, items: Tensor | float | None) -> Tensor | None:
        """The Trainer's number of items, one that has a gradient, for the loss to be computed with."""
        if items is None:
            return None
        return torch.as_tensor(items).detach().float().requires_grad_()

    def factor(
        self, trainer: Trainer, loss: Tensor, outputs: Any, counted: Any, labels: Tensor, items: Tensor | None
    ) -> Tensor | float:
        """What the batch's mean loss was multiplied by.

        Args:
            trainer: whose settings say what is known.
            loss: of the batch, with a graph.
            outputs: the model's.
            counted: the labels that the Trainer counted, of any shape; no tensor where there were none.
            labels: those that the regularizer takes.
            items: what ``watched`` returned for this batch.

        Raises:
            UnsupportedLossError: it cannot be told.
        """
        if items is None:
            return 1.0
        several = trainer.args.average_tokens_across_devices
        processes = float(trainer.accelerator.num_processes if several else 1)
        accumulates = trainer.args.gradient_accumulation_steps > 1 or trainer.accelerator.num_processes > 1
        scaled = trainer.loss_is_scaled_for_ga
        if not accumulates or not isinstance(counted, Tensor) or scaled is False:
            return processes
        normalised = counted.ne(_IGNORED).sum() * processes / items.detach()
        if scaled or self._divided(loss, items):
            return normalised
        return normalised if self._plain(loss, outputs, labels, float(normalised), processes) else processes

    def _divided(self, loss: Tensor, items: Tensor) -> bool:
        """Whether the loss has a gradient with respect to the number of items; that of all of it is -loss / items."""
        if not loss.requires_grad:
            return False
        (slope,) = torch.autograd.grad(loss, items, retain_graph=True, allow_unused=True)
        if slope is None:
            return False
        if not self._whole:  # the same in each batch, and to look waits for the device
            share = float(-slope * items.detach() / loss.detach())
            if abs(share - 1) > _WHOLE:
                raise UnsupportedLossError(
                    f"compute_loss: expected a loss that is divided by num_items_in_batch as a whole or not at all, "
                    f"got one that is in part ({share:.3f} of it); divide each term, or {_WHAT_TO_DO}"
                )
            self._whole = True
        return True

    def _plain(self, loss: Tensor, outputs: Any, labels: Tensor, normalised: float, processes: float) -> bool:
        """Whether a loss without such a gradient was normalised all the same."""
        if self._plain_is_normalised is not None:
            return self._plain_is_normalised
        if abs(normalised - processes) <= _EQUAL * processes:
            return False  # equal either way, and nothing learnt
        logits = outputs.get("logits") if isinstance(outputs, Mapping) else getattr(outputs, "logits", None)
        value = float(loss.detach())
        mean = float(self._mean_loss(logits.detach().float(), labels)) if isinstance(logits, Tensor) else float("nan")
        far_if_normalised, far_if_mean = abs(value - normalised * mean), abs(value - processes * mean)
        if not min(far_if_normalised / normalised, far_if_mean / processes) <= _NEAR * mean:
            raise UnsupportedLossError(
                f"compute_loss: expected a loss whose scale under gradient accumulation can be told; it has no "
                f"gradient with respect to num_items_in_batch, and {value:.4g} is near neither the batch's "
                f"mean cross entropy, {processes * mean:.4g}, nor its share of the step's, {normalised * mean:.4g}; "
                f"{_WHAT_TO_DO}"
            )
        self._plain_is_normalised = far_if_normalised / normalised < far_if_mean / processes
        return self._plain_is_normalised

    def _mean_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        if self._multi_label:
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits))
        return F.cross_entropy(logits, labels.to(logits.device))
