"""The Trainer whose loss has the penalty in it: as a mixin for trainers of one's own, and ready."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import Trainer

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.training import LipschitzRegularizer
from captum_lipschitz_transformers.ara import AraCallback
from captum_lipschitz_transformers.callback import LipschitzTrainerCallback, refuse_second
from captum_lipschitz_transformers.checkpoint import load_state, save_state
from captum_lipschitz_transformers.loss import RegularizedLoss
from captum_lipschitz_transformers.refusals import refuse_unsupported

if TYPE_CHECKING:
    _Base: TypeAlias = Trainer
else:
    _Base = object


class LipschitzTrainerMixin(_Base):
    """Adds the Lipschitz penalty to the loss of the Trainer that it stands before.

    ``class MyTrainer(LipschitzTrainerMixin, Trainer)``; a ``compute_loss`` of a trainer further on is regularised too.
    The loss becomes ``loss + strength * penalty``, before the Trainer divides, scales and differentiates it. The
    controller sees one loss per optimiser step: the mean over its micro-batches and the processes. Evaluation is the
    Trainer's own. A ``LipschitzTrainerCallback`` is added, and ``AraCallback``s are told which trainer they belong to.
    Checkpoints hold the regularizer's state, so that ``resume_from_checkpoint`` goes on as if nothing had happened.

    Args:
        args: of the Trainer, by position.
        lipschitz: the regularizer; ``accumulation_steps`` is the Trainer's, ``gradient_accumulation_steps``. In several
            processes each draws for itself: the process's rank is added to the generator's seed.
        lipschitz_input: the batch's entry that the penalty is about; ``None`` for the model's ``main_input_name``
            (``"pixel_values"``), or ``"inputs_embeds"``.
        lipschitz_labels: the batch's entry that has the labels; ``None`` for the only one of ``label_names``.
        lipschitz_radius_every: least number of optimiser steps from one median radius in the log to the next, ``None``
            for none.
        settings: the Trainer's.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.
        UnsupportedTrainingError: where the gradient would not be right; the message names what to do. Some of it shows
            in ``train`` only.

    Example:
        >>> class Own(LipschitzTrainerMixin, Trainer):
        ...     pass
        >>> Own(lipschitz=3.0)
        Traceback (most recent call last):
        captum_lipschitz.errors.InvalidTypeError: lipschitz: expected a LipschitzRegularizer, got float

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self,
        *args: Any,
        lipschitz: LipschitzRegularizer,
        lipschitz_input: str | None = None,
        lipschitz_labels: str | None = None,
        lipschitz_radius_every: int | None = 50,
        **settings: Any,
    ) -> None:
        loss = RegularizedLoss(lipschitz, input_name=lipschitz_input, labels=lipschitz_labels)
        callback = LipschitzTrainerCallback(loss, radius_every=lipschitz_radius_every)
        super().__init__(*args, **settings)
        self.begin_lipschitz(loss, callback)

    def begin_lipschitz(self, loss: RegularizedLoss, callback: LipschitzTrainerCallback) -> None:
        """What is to be done once the Trainer stands: its loss goes through ``loss``, and ``callback`` follows it."""
        if not isinstance(self, Trainer):
            raise InvalidTypeError(
                f"{type(self).__name__}: expected a subclass of transformers.Trainer: "
                "class MyTrainer(LipschitzTrainerMixin, Trainer)"
            )
        refuse_second(self.callback_handler.callbacks)
        refuse_unsupported(self, loss.regularizer)
        self.lipschitz_loss = loss
        self.lipschitz_callback = callback
        super().add_callback(callback)
        callback.set_trainer(self)
        for one in self.callback_handler.callbacks:
            if isinstance(one, AraCallback):
                one.set_trainer(self)

    def add_callback(self, callback: Any) -> None:
        """As the Trainer's; an ``AraCallback`` logs through this trainer."""
        refuse_second([callback])
        super().add_callback(callback)
        if isinstance(callback, AraCallback):
            callback.set_trainer(self)

    def call_model_init(self, *args: Any, **settings: Any) -> Any:
        """As the Trainer's, which calls it in each ``train``; for a new model the regularizer starts anew."""
        model = super().call_model_init(*args, **settings)
        loss: RegularizedLoss | None = getattr(self, "lipschitz_loss", None)  # none while the Trainer is being made
        if loss is not None:
            loss.restart()
        return model

    def training_step(self, *args: Any, **settings: Any) -> Tensor:
        """As the Trainer's; what is checkpointed runs attention once more in the backward pass."""
        with sdpa_kernel(SDPBackend.MATH):
            loss: Tensor = super().training_step(*args, **settings)
        return loss

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,  # noqa: FBT001, FBT002 (the Trainer's own signature)
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The Trainer's loss, and while it trains with the penalty.

        Args:
            model: as the Trainer has wrapped it.
            inputs: the batch, the model's keywords.
            return_outputs: whether to return the model's outputs too.
            num_items_in_batch: labels in all micro-batches of the optimiser step, if the Trainer counted them.
        """
        host = super().compute_loss
        if not (model.training and torch.is_grad_enabled()):
            return host(model, inputs, return_outputs=return_outputs, num_items_in_batch=num_items_in_batch)

        def with_outputs(given: dict[str, Any], items: Tensor | None) -> Any:
            return host(model, given, return_outputs=True, num_items_in_batch=items)

        network = self.accelerator.unwrap_model(model)
        loss, outputs = self.lipschitz_loss.compute(self, network, inputs, num_items_in_batch, with_outputs)
        return (loss, outputs) if return_outputs else loss

    def log(self, logs: dict[str, float], *args: Any, **settings: Any) -> None:
        """As the Trainer's; the penalty's figures go with a training loss."""
        if "loss" in logs:
            logs.update(self.lipschitz_callback.take_figures())
        super().log(logs, *args, **settings)

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        save_state(self.lipschitz_loss.regularizer, output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is not None:
            own = load_state(self.lipschitz_loss.regularizer, checkpoint)
            self.lipschitz_loss.seeded = self.lipschitz_loss.seeded or own


class LipschitzTrainer(LipschitzTrainerMixin, Trainer):
    """Hugging Face's ``Trainer`` with the Lipschitz penalty, see ``LipschitzTrainerMixin``.

    Example:
        >>> from captum_lipschitz import AdaptiveStrength
        >>> from transformers import TrainingArguments, ViTConfig, ViTForImageClassification
        >>> config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        ...                    image_size=8, patch_size=4, num_labels=3)
        >>> trainer = LipschitzTrainer(
        ...     ViTForImageClassification(config),
        ...     TrainingArguments(save_strategy="no", report_to="none", use_cpu=True),
        ...     lipschitz=LipschitzRegularizer(strength=AdaptiveStrength(target_loss=1.0)),
        ... )
    """
