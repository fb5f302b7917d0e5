"""The regularizer inside somebody else's training loop: attached to the model, the loop itself unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz._hooks import Hooks
from captum_lipschitz._trace import undone
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training.cross_entropy import read_cross_entropy
from captum_lipschitz.training.processes import number_of_processes
from captum_lipschitz.training.regularizer import LipschitzRegularizer, RegularizerOutput

_UNCOUNTED: ContextVar[bool] = ContextVar("uncounted", default=False)


@contextmanager
def uncounted() -> Iterator[None]:
    """Inside, forward passes in train mode are no training steps for an attached regularizer: an attack's, say."""
    before = _UNCOUNTED.get()
    with undone(lambda: _UNCOUNTED.set(before)):
        _UNCOUNTED.set(True)
        yield


class AttachedRegularizer:
    """Handle of an attached regularizer.

    Args:
        model: the one that is trained.
        regularizer: forms the penalty.
        loss_scale: see ``attach_regularizer``, which makes this handle.

    Attributes:
        regularizer: the one attached; its ``state_dict`` belongs in the checkpoint.
        last_output: the figures of the last training step, or ``None``.
    """

    def __init__(self, model: nn.Module, regularizer: LipschitzRegularizer, loss_scale: float | None) -> None:
        self.regularizer = regularizer
        self.last_output: RegularizerOutput | None = None
        self._loss_scale = loss_scale
        self._hooks = Hooks()
        try:
            self._hooks.before(model, self._watch_inputs)
            self._hooks.after(model, self._watch_logits)
        except BaseException:  # Ctrl-C too
            self.remove()
            raise

    def remove(self) -> None:
        """Detach: the model trains as it did before. May be called more than once."""
        self._hooks.remove()

    def _watch_inputs(self, model: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if _UNCOUNTED.get() or not (model.training and torch.is_grad_enabled()):
            return None
        if not args or not isinstance(args[0], Tensor) or not args[0].is_floating_point():
            raise InvalidTypeError("model: expected floating inputs as the first positional argument of its forward")
        return args if args[0].requires_grad else (args[0].detach().requires_grad_(), *args[1:])

    def _watch_logits(self, model: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if _UNCOUNTED.get() or not (model.training and torch.is_grad_enabled()):
            return None
        if not isinstance(output, Tensor) or output.dim() != 2:
            raise InvalidTypeError(f"model: expected logits of shape (N, C), got {type(output).__name__}")
        return _Observed.apply(output, lambda gradient: self._add_penalty(args[0], output, gradient))

    def _add_penalty(self, inputs: Tensor, logits: Tensor, gradient: Tensor) -> None:
        """Add the penalty's gradient to the parameters, within the backward pass that brought ``gradient``."""
        _refuse_several_processes()
        if not bool(torch.isfinite(gradient).all()) or not bool(gradient.any()):
            return  # a step that a GradScaler will skip, or a loss that counts for nothing
        labels, scale = read_cross_entropy(logits.detach(), gradient)
        with torch.enable_grad():
            precise = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
            task_loss = F.cross_entropy(precise, labels)
            output = self.regularizer(logits, inputs, labels, task_loss=task_loss)
            if output.loss.requires_grad:
                weighted = output.loss * (scale if self._loss_scale is None else self._loss_scale)
                weighted.backward(retain_graph=True)
        self.last_output = RegularizerOutput(*(figure.detach() for figure in output))


def attach_regularizer(
    model: nn.Module, regularizer: LipschitzRegularizer, *, loss_scale: float | None = None
) -> AttachedRegularizer:
    """Regularise every training step of ``model`` without touching the loop that trains it.

    Each ``loss.backward()`` through the model's logits, in train mode, also adds the gradient of
    ``scale * strength * penalty`` to the parameters. Labels and scale are read off the gradient that arrives at the
    logits: for cross entropy it is ``scale / N * (softmax - onehot)``. A loss divided for gradient accumulation or
    multiplied by a GradScaler is thus followed. Where the gradient is not of that form (label smoothing, mixup, class
    weights, a second loss) by more than its rounding there is an error, never a guess: add ``regularizer(...).loss`` to
    such a loss explicitly. (With bf16 logits the rounding hides label smoothing below about 0.02.)

    One backward pass is one call of the regularizer (its controller sees that batch's cross entropy, or with
    ``accumulation_steps`` the mean of so many; end a shorter step with ``regularizer.step()``). A gradient that is
    zero, or not finite (a step that a GradScaler skips), is none. Every gradient taken through the model in train mode
    counts, also by ``torch.autograd.grad``, but for those of ``AdversarialTraining`` and whatever else runs within
    ``uncounted()``; our attacks run in evaluation mode.

    Args:
        model: takes the inputs, (N, ...), as its first argument and returns logits, (N, C).
        regularizer: see ``LipschitzRegularizer``.
        loss_scale: the factor on the mean cross entropy, where it is known; ``None`` reads it off.

    Returns:
        A handle with ``remove()``.

    Raises:
        InvalidInputError: training runs in several processes, whose gradient synchronisation would miss the penalty's.
            Form the loss explicitly inside the wrapped module there.
        UnsupportedLossError: (in ``backward``) the loss is not a plain cross entropy of these logits.

    Example:
        >>> model = torch.nn.Linear(4, 3)
        >>> handle = attach_regularizer(model, LipschitzRegularizer(strength=0.1))
        >>> logits = model(torch.rand(8, 4))
        >>> torch.nn.functional.cross_entropy(logits, torch.zeros(8, dtype=torch.long)).backward()
        >>> bool(handle.last_output.penalty > 0)
        True
        >>> handle.remove()

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    if loss_scale is not None and not loss_scale > 0:
        raise InvalidInputError(f"loss_scale: expected a positive factor, got {loss_scale}")
    _refuse_several_processes()
    return AttachedRegularizer(model, regularizer, loss_scale)


class _Observed(torch.autograd.Function):
    """The identity, which shows the gradient that passes back through it to a callback."""

    @staticmethod
    def forward(ctx: Any, logits: Tensor, callback: Callable[[Tensor], None]) -> Tensor:
        ctx.callback = callback
        return logits.view_as(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.callback(gradients[0])
        return gradients[0], None


def _refuse_several_processes() -> None:
    if number_of_processes() > 1:
        raise InvalidInputError(
            "model: attach_regularizer does not support training in several processes, where the gradients it adds are "
            "not synchronised; use DistributedDataParallel(RegularizedModule(model, regularizer))"
        )
