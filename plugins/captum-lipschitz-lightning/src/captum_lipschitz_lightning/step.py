"""The training step of a LightningModule with the penalty added to the loss that it returns."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidTypeError, UnsupportedTrainingError
from captum_lipschitz.training import LastStep, LipschitzRegularizer, StepRegularizer
from captum_lipschitz_lightning.selection import (
    FromBatch,
    FromModule,
    check_from_batch,
    check_from_module,
    entry_of,
    network_of,
)

_EXPLICIT = "add the penalty in training_step: loss = regularizer(logits, inputs, labels, task_loss=loss).loss"


class RegularizedStep:
    """``training_step`` of a LightningModule, replaced by one whose loss has the penalty in it.

    The penalty is formed within ``training_step``. So Lightning sees one loss, which it divides for gradient
    accumulation and scales for half precision, and DistributedDataParallel, which runs ``training_step`` as its forward
    pass, exchanges the gradients of the whole of it.

    Args:
        module: in automatic optimisation, with a trainer of one device or of the DDP strategy.
        regularizer: ``accumulation_steps`` is set as the trainer has it.
        model: which network returns the logits, see ``FromModule``; ``None`` for the one call, of the module itself or
            of one of its children, that the loss was computed from.
        labels: where in the batch they are, see ``FromBatch``; ``None`` reads them off the loss, which then must be the
            mean cross entropy of integer labels, times any factor, plus anything that does not depend on the logits.
            With ``labels`` the loss may be any, and the controller sees it as it is.
        inputs: where in the batch the tensor is that the penalty is taken with respect to, see ``FromBatch``; ``None``
            for the only floating one that the network is given.
    """

    def __init__(
        self,
        module: pl.LightningModule,
        regularizer: LipschitzRegularizer,
        *,
        model: FromModule | None = None,
        labels: FromBatch | None = None,
        inputs: FromBatch | None = None,
    ) -> None:
        if not isinstance(module, pl.LightningModule):
            raise InvalidTypeError(f"module: expected a lightning.pytorch.LightningModule, got {type(module).__name__}")
        check_from_module(model)
        check_from_batch(labels, "labels")
        check_from_batch(inputs, "inputs")
        self.regularizer = regularizer
        self._module = module
        self._model, self._labels, self._inputs = model, labels, inputs
        self._step: StepRegularizer | None = None  # made at the first step: layers may come late, in configure_model
        self.optimizer_steps: int | None = None
        self._before = module.__dict__.get("training_step")
        self._original = module.training_step
        self._attach()

    @property
    def last(self) -> LastStep | None:
        """What the last step ran, or ``None``."""
        return None if self._step is None else self._step.last

    def remove(self) -> None:
        """Give the module its own ``training_step`` back. May be called more than once."""
        if self._module.__dict__.get("training_step") is not self._replacement:
            return
        if self._before is None:
            del self._module.__dict__["training_step"]
        else:
            self._module.training_step = self._before  # type: ignore[method-assign]

    def end(self) -> None:
        """Tell the regularizer that an optimiser step has ended, where one has since the last call."""
        steps = self._module.trainer.global_step
        if self.optimizer_steps is not None and steps != self.optimizer_steps:
            self.regularizer.step()
        self.optimizer_steps = steps

    def _attach(self) -> None:
        @functools.wraps(self._original)
        def training_step(*args: Any, **keywords: Any) -> Any:
            return self._run(*args, **keywords)

        # Lightning looks at the arguments of the innermost of two functions only.
        training_step.__wrapped__ = getattr(self._original, "__wrapped__", self._original)
        self._replacement = training_step
        self._module.training_step = training_step  # type: ignore[method-assign]

    def _run(self, *args: Any, **keywords: Any) -> Any:
        if not torch.is_grad_enabled():
            return self._original(*args, **keywords)  # validation that shares the step
        refuse_unsupported_trainer(self._module)
        self.end()
        one = self._module.trainer.accumulate_grad_batches == 1
        self.regularizer.accumulation_steps = 1 if one else None
        if self._step is None:
            networks = _watched(self._module, self._model)
            self._step = StepRegularizer(self.regularizer, networks, step="training_step")
        batch = args[0] if args else next(iter(keywords.values()))
        with self._step.watching(None if self._inputs is None else entry_of(batch, self._inputs, "inputs")):
            answer = self._original(*args, **keywords)
        loss = answer.get("loss") if isinstance(answer, Mapping) else answer
        if not isinstance(loss, Tensor):
            return answer  # None skips the batch; anything else Lightning refuses by itself
        labels = None if self._labels is None else entry_of(batch, self._labels, "labels")
        total = self._step.add_penalty(loss, labels)
        return {**answer, "loss": total} if isinstance(answer, Mapping) else total


def refuse_unsupported_trainer(module: pl.LightningModule) -> None:
    """Raise where the penalty's gradient would be wrong, or was never compared.

    Raises:
        UnsupportedTrainingError: names the way that works.
    """
    if not module.automatic_optimization:
        raise UnsupportedTrainingError(
            f"module: expected automatic optimisation, {type(module).__name__} optimises by itself; {_EXPLICIT}"
        )
    strategy = module.trainer.strategy
    if not isinstance(strategy, (SingleDeviceStrategy, DDPStrategy)):
        if type(strategy).__module__.startswith("pytorch_lightning"):
            raise UnsupportedTrainingError(
                "trainer: expected one of lightning.pytorch, got one of pytorch_lightning, a package of its own; "
                "import lightning.pytorch as pl"
            )
        raise UnsupportedTrainingError(
            f"strategy: expected one device or DDP, got {type(strategy).__name__}, with which the penalty's gradient "
            "has not been compared; use strategy='ddp'"
        )


def _watched(module: pl.LightningModule, model: FromModule | None) -> dict[str, nn.Module]:
    _refuse_compiled(module)
    if model is not None:
        return {model if isinstance(model, str) else "model": network_of(module, model)}
    return {type(module).__name__: module, **dict(module.named_children())}


def _refuse_compiled(module: pl.LightningModule) -> None:
    """A graph that was compiled without the penalty cannot be differentiated twice, nor watched from within."""
    for name, part in module.named_modules():
        if hasattr(part, "_orig_mod") or getattr(part, "_compiled_call_impl", None) is not None:
            compiled = name or type(module).__name__
            compiled = name or type(module).__name__
            raise UnsupportedTrainingError(
                f"module: expected no compiled part, {compiled} is one, whose gradient has no second derivative; "
                "compile RegularizedModule(model, regularizer) by its own compile(), add the penalty in training_step"
            )
