"""BatchNorm's running averages, estimated anew for a network whose activations or weights have moved."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import update_bn

from captum_lipschitz._model import device_of
from captum_lipschitz._trace import random_states, set_random_states, settled, undone
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


def recalibrate_batch_norm(model: nn.Module, batches: Iterable[Any]) -> None:
    """Estimate the running averages of every BatchNorm layer anew, from one pass over ``batches`` in training mode.

    The work is done by ``torch.optim.swa_utils.update_bn``: the averages become the mean over the batches, each with
    the same weight. Beyond it: if the pass fails or is interrupted the averages are as they were before (``update_bn``
    leaves them half done, the network in training mode and the layers without momentum), no batch at all is an error
    (there: means of 0 and variances of 1), and in every case the mode of each submodule, other layers' buffers and the
    global random state stay as they were.

    BatchNorm layers that are frozen (in evaluation mode, or their parameters without gradient) are estimated too, and
    stay frozen. A network without such layers stays as it is.

    Args:
        model: changed in place, in nothing but these averages.
        batches: inputs, (N, ...), or tuples and lists whose first element they are (a ``DataLoader`` over training
            images, augmented as in training). They are moved to the model's device. Some thousand images are enough.

    Raises:
        InvalidInputError: there was no batch.
        InvalidTypeError: a batch is neither a tensor nor a tuple or list that starts with one.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.BatchNorm1d(3)).eval()
        >>> recalibrate_batch_norm(model, [torch.ones(4, 3), (torch.zeros(4, 3), "labels")])
        >>> model[0].running_mean, model.training
        (tensor([0.5000, 0.5000, 0.5000]), False)
    """
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    modes = [(module, module.training) for module in model.modules()]
    momenta = [(norm, norm.momentum) for norm in norms]
    averages = {id(buffer) for norm in norms for buffer in norm.buffers()}
    kept = [(buffer, buffer.detach().clone()) for buffer in model.buffers()]
    device = device_of(model) or torch.device("cpu")
    states, gradients = random_states(device), torch.is_grad_enabled()
    estimated = False

    def restore() -> None:
        for buffer, before in kept:
            if not (estimated and id(buffer) in averages):
                buffer.data.copy_(before)
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, training in modes:
            module.training = training
        set_random_states(states)
        torch.set_grad_enabled(mode=gradients)

    with settled(), undone(restore):
        update_bn(_inputs(batches), model, device_of(model))
        estimated = True


def _inputs(batches: Iterable[Any]) -> Iterator[Tensor]:
    empty = True
    for batch in batches:
        inputs = batch[0] if isinstance(batch, (tuple, list)) and batch else batch
        if not isinstance(inputs, Tensor):
            raise InvalidTypeError(
                f"batches: expected tensors, or tuples that start with one, got {type(batch).__name__}"
            )
        empty = False
        yield inputs
    if empty:
        raise InvalidInputError("batches: expected at least one batch of inputs, got none")
