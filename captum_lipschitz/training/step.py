"""The penalty added to a loss that somebody else's training step computed: what the plugins of trainers are made of."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz._trace import settled, undone
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnsupportedLossError, UnsupportedTrainingError
from captum_lipschitz.training.attention import plain_attention
from captum_lipschitz.training.cross_entropy import read_cross_entropy
from captum_lipschitz.training.forward_calls import ForwardCall, ForwardCalls, the_ones_used
from captum_lipschitz.training.regularizer import LipschitzRegularizer, RegularizerOutput

_SAME = 8.0  # units of rounding within which a factor that was read off a gradient is 1


class LastStep(NamedTuple):
    """What a regularised step ran.

    Attributes:
        network: the one that returned the logits, as a function of its inputs alone: with the other arguments that it
            was called with, and without what it returned beside the logits.
        inputs: what it was given, (N, ...), detached.
        labels: (N,) classes, or as the step's owner gave them.
        output: the regularizer's figures, detached.
    """

    network: nn.Module
    inputs: Tensor
    labels: Tensor
    output: RegularizerOutput


class StepRegularizer:
    """Adds the penalty to the loss of a training step that is written elsewhere, in a trainer or a task of a host tool.

    The step runs within ``watching()``, which gives the network's inputs a gradient and attention a form that can be
    differentiated twice. Then ``add_penalty`` finds the one forward pass that the loss was computed from and returns
    ``loss + factor * strength * penalty``, one loss, which the host divides, scales and differentiates as it does its
    own.

    Args:
        regularizer: with ``accumulation_steps`` as the host accumulates.
        networks: those that may be the one that returns the logits, (N, C) or an object with ``logits``, by name.
            Several are told apart by which of them the loss came from.
        step: what the host calls its step, for messages.

    Attributes:
        last: what the last step ran, or ``None`` before the first and after one without a loss.

    Raises:
        InvalidInputError, InvalidTypeError: there is no network, or one is no ``nn.Module``.

    Example:
        >>> network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.GELU(), torch.nn.Linear(8, 3))
        >>> step = StepRegularizer(LipschitzRegularizer(strength=0.1), {"network": network})
        >>> with step.watching():
        ...     loss = F.cross_entropy(network(torch.rand(8, 4)), torch.arange(8) % 3)
        >>> total = step.add_penalty(loss)
        >>> total.backward()
        >>> bool(total > loss)
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self, regularizer: LipschitzRegularizer, networks: Mapping[str, nn.Module], *, step: str = "step"
    ) -> None:
        if not networks:
            raise InvalidInputError("networks: expected at least one, got none")
        for name, network in networks.items():
            if not isinstance(network, nn.Module):
                raise InvalidTypeError(f"networks: expected an nn.Module as {name!r}, got {type(network).__name__}")
        self.regularizer = regularizer
        self.last: LastStep | None = None
        self._networks = dict(networks)
        self._step = step
        self._calls: list[ForwardCall] = []

    @contextmanager
    def watching(self, inputs: Tensor | None = None) -> Iterator[None]:
        """The host's step, up to its loss, runs within this; what it ran before is forgotten.

        Args:
            inputs: the tensor that the penalty is taken with respect to, (N, ...), which the network must be given
                itself. ``None`` for the only floating tensor that it is given, of two dimensions or more.

        Yields:
            Nothing; what ran within is known afterwards.

        Raises:
            UnsupportedTrainingError: the network is given several, and ``inputs`` does not say which.
        """
        self.last = None
        watched = ForwardCalls(self._networks, differentiable=self.regularizer.due, inputs=inputs)
        self._calls = watched.calls
        with settled(), plain_attention(), undone(watched.close), watched:
            yield

    def add_penalty(self, loss: Tensor, labels: Tensor | None = None) -> Tensor:
        """The loss with the penalty in it.

        Args:
            loss: a scalar, computed within ``watching()`` from the logits of one call of one network.
            labels: (N,) classes, or as the regularizer takes them; the loss may then be any, and the controller sees it
                as it is. ``None`` reads them off the loss, which must then be the mean cross entropy of integer labels
                times any factor, plus anything that does not depend on the logits: the penalty gets the same factor.

        Returns:
            A scalar; the loss itself where ``every=`` skips the step.

        Raises:
            UnsupportedTrainingError: the loss was computed from no call that was watched, or from several.
            UnsupportedLossError: labels cannot be read off it.
        """
        calls, self._calls = self._calls, []
        with plain_attention():  # checkpointed parts of the network run once more
            call, slope = self._the_one_used(calls, loss)
            if labels is not None:
                labels = labels.to(call.logits.device)
                output = self.regularizer(call.logits, call.inputs, labels, task_loss=loss)
                total = output.loss
            else:
                labels, factor = self._read(call, slope)
                precise = call.logits.detach().to(torch.promote_types(call.logits.dtype, torch.float32))
                task_loss = F.cross_entropy(precise, labels)
                output = self.regularizer(call.logits, call.inputs, labels, task_loss=task_loss)
                total = loss + factor * (output.loss - task_loss) if output.loss.requires_grad else loss
        figures = RegularizerOutput(*(figure.detach() for figure in output))
        self.last = LastStep(call.network, call.inputs.detach(), labels, figures)
        return total

    def _the_one_used(self, calls: list[ForwardCall], loss: Tensor) -> tuple[ForwardCall, Tensor | None]:
        used = the_ones_used(calls, loss)
        if len(used) == 1 and not used[0][0].earlier:
            return used[0]
        names = [call.name for call, _ in used]
        earlier = dict.fromkeys(name for call, _ in used for name in call.earlier if name not in names)
        found = ", ".join([*earlier, *names]) or "none"
        raise UnsupportedTrainingError(
            f"{self._step}: expected a loss computed from the logits, (N, C), of one call of one network on the "
            f"batch's inputs; of the calls of {', '.join(self._networks)} it was computed from: {found}. Name the "
            'network that returns the logits, model="net" or model=lambda module: module.net; a step that runs it '
            "several times has to add the penalty by itself: regularizer(logits, inputs, labels, task_loss=loss).loss. "
            "A tensor that inputs= names must be what the network is given, not what it is made of"
        )

    def _read(self, call: ForwardCall, slope: Tensor | None) -> tuple[Tensor, Tensor | float]:
        if slope is None:
            raise UnsupportedLossError(
                f"{self._step}: its loss was computed by {call.name} itself, and not from the logits that it returned, "
                "so labels cannot be read off it; say where they are, labels="
            )
        try:
            labels, factor = read_cross_entropy(call.logits.detach(), slope)
        except UnsupportedLossError as error:
            raise UnsupportedLossError(
                f"{self._step}: its loss is not the mean cross entropy of integer labels (label smoothing, mixup, "
                "class weights, a second loss on the logits), off which labels could be read; say where they are, "
                'labels=1, labels="label" or labels=lambda batch: batch[1]'
            ) from error
        same = abs(float(factor) - 1) <= _SAME * max(torch.finfo(slope.dtype).eps, 1e-6)
        return labels, 1.0 if same else factor
