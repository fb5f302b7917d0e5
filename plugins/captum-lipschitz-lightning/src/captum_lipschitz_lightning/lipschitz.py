"""The callback that regularises the training of a LightningModule which knows nothing of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor, distributed

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics import margin_radius
from captum_lipschitz.training import LipschitzRegularizer, StrengthController
from captum_lipschitz.training.processes import number_of_processes, process_rank
from captum_lipschitz_lightning.selection import FromBatch, FromModule, check_from_batch, check_from_module
from captum_lipschitz_lightning.step import RegularizedStep, refuse_unsupported_trainer


class LipschitzCallback(pl.Callback):
    """Adds the Lipschitz penalty to the loss that ``training_step`` returns; the module stays as it is.

    Its loss becomes ``loss + strength * penalty``, formed within ``training_step`` (see ``RegularizedStep``), before
    Lightning divides it for gradient accumulation and scales it for half precision, and inside what
    DistributedDataParallel wraps. The controller sees one loss per optimiser step, the mean over its micro-batches and
    over the processes. Other strategies, and manual optimisation, are refused.

    Logged on each step: ``lipschitz_penalty``, ``lipschitz_strength`` and, every ``radius_every`` optimiser steps,
    ``lipschitz_median_radius``: the median over the batch, of all processes, of ``margin / |grad margin|`` after the
    step (``margin_radius``: an estimate of each image's distance to the decision boundary, in RMSE, 0 where it is
    misclassified). One radius costs about a plain step.

    Args:
        strength: psi: a number, or a controller such as ``AdaptiveStrength(target_loss=1.5)``.
        model: the network that returns the logits, (N, C): a submodule's name, ``"net"``, or a function,
            ``lambda module: module.net``. ``None`` for the one call of the module or of one of its children that the
            loss was computed from; several are an error.
        labels: where the batch has them: a place, a key or a function, ``lambda batch: batch[1]``. ``None`` reads them
            off the loss's gradient at the logits; that must be the one of a mean cross entropy of integer labels, or
            there is an error. Needed for label smoothing, mixup (the mixed labels), class weights, other losses.
        inputs: where the batch has the tensor that the penalty is taken with respect to, named as ``labels`` are.
            Needed where the network is given several floating tensors.
        radius_every: optimiser steps from one radius to the next, at least 1; ``None`` for none.
        settings: the others of ``LipschitzRegularizer``, but for ``accumulation_steps``, which the trainer decides. In
            several processes each draws for itself: the process's rank is added to the generator's seed.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.
        UnsupportedTrainingError, UnsupportedLossError: in ``fit``, where the gradient would not be right; the message
            names what to do.

    Attributes:
        regularizer: the one that is attached. Its state is in the trainer's checkpoints, with the generator of every
            process.

    Example:
        >>> from captum_lipschitz import AdaptiveStrength
        >>> callback = LipschitzCallback(strength=AdaptiveStrength(target_loss=1.5), model="net")
        >>> trainer = pl.Trainer(accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False)

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self,
        *,
        strength: float | StrengthController,
        model: FromModule | None = None,
        labels: FromBatch | None = None,
        inputs: FromBatch | None = None,
        radius_every: int | None = 50,
        **settings: Any,
    ) -> None:
        super().__init__()
        check_from_module(model)
        check_from_batch(labels, "labels")
        check_from_batch(inputs, "inputs")
        if "accumulation_steps" in settings:
            raise InvalidInputError(
                "accumulation_steps: expected none, as it is the trainer's: Trainer(accumulate_grad_batches=...)"
            )
        if radius_every is not None and radius_every < 1:
            raise InvalidInputError(f"radius_every: expected at least 1 or None, got {radius_every}")
        self.regularizer = LipschitzRegularizer(strength=strength, **settings)
        self.model = model
        self.labels = labels
        self.inputs = inputs
        self.radius_every = radius_every
        self._step: RegularizedStep | None = None
        self._seeded = False
        self._device = torch.device("cpu")

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Attach, before a learning-rate or batch-size finder tries steps, which start with the fit."""
        if stage != "fit":
            return
        refuse_unsupported_trainer(pl_module)
        self._device = trainer.strategy.root_device
        if not self._seeded:
            # Made before there were processes, so alike in all of them.
            generator = self.regularizer.generator
            if process_rank() > 0:
                generator.manual_seed(generator.initial_seed() + process_rank())
            self._seeded = True
        self._detach()
        self._step = RegularizedStep(
            pl_module, self.regularizer, model=self.model, labels=self.labels, inputs=self.inputs
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._step is None:
            return
        before = self._step.optimizer_steps
        self._step.end()
        last = self._step.last
        if before is None or last is None:
            return
        several = number_of_processes() > 1
        figures = {"lipschitz_penalty": last.output.penalty, "lipschitz_strength": last.output.strength}
        pl_module.log_dict(figures, on_step=True, on_epoch=False, sync_dist=several)
        stepped = trainer.global_step > before
        if self.radius_every is not None and stepped and before % self.radius_every == 0:
            radius = self._median_radius()
            if radius is not None:
                # The same in all processes; exchanged once more, it stays what it is.
                pl_module.log("lipschitz_median_radius", radius, on_step=True, on_epoch=False, sync_dist=several)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._detach()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._detach()

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._detach()

    def state_dict(self) -> dict[str, Any]:
        """The regularizer's state, with the generators of all processes, which must all call, as Lightning does."""
        state = self.regularizer.state_dict()
        return {**state, "generators": _from_all(state["generator"], self._device)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer: each process with its own generator, as far as there is one for it.

        Raises:
            InvalidInputError: the state is not this callback's.
        """
        state: Mapping[str, Any] = state_dict
        generators = state.get("generators", [])
        rank = process_rank()
        if rank < len(generators):
            self.regularizer.load_state_dict({**state, "generator": generators[rank]})
            self._seeded = True
        else:  # more processes than the checkpoint had: this one draws anew
            self.regularizer.load_state_dict({**state, "generator": self.regularizer.generator.get_state()})

    def _detach(self) -> None:
        if self._step is not None:
            self._step.remove()
            self._step = None

    def _median_radius(self) -> Tensor | None:
        last = self._step.last if self._step is not None else None
        if last is None or self.regularizer.multi_label:
            return None  # margin_radius takes one label per image
        labels = last.labels.argmax(1) if last.labels.dim() == 2 else last.labels
        radii = margin_radius(last.network, last.inputs, labels).double()
        if number_of_processes() == 1:
            return radii.median()
        gathered: list[Any] = [None] * number_of_processes()
        distributed.all_gather_object(gathered, radii.cpu())  # batches may differ in size
        return torch.cat(gathered).median().to(radii.device)


def _from_all(state: Tensor, device: torch.device) -> list[Tensor]:
    if number_of_processes() == 1:
        return [state]
    own = state.to(device)
    everyone = [torch.empty_like(own) for _ in range(number_of_processes())]
    distributed.all_gather(everyone, own)
    return [other.cpu() for other in everyone]
