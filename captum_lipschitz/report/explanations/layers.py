"""What a model is made of, as far as methods that look inside need to know."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from captum_lipschitz._hooks import Hooks
from captum_lipschitz._trace import no_trace, settled, undone
from captum_lipschitz._typing import Model
from captum_lipschitz.nn import HalfHuberReLU, _functional_relus


class Run(NamedTuple):
    """A module that ran once in a forward pass and returned one tensor.

    Attributes:
        name: of the module within the model.
        module: itself.
        shape: of its output.
    """

    name: str
    module: nn.Module
    shape: tuple[int, ...]


def runs_of(model: Model, example: Tensor) -> list[Run]:
    """The modules in the order in which they end in a forward pass, those that run several times left out."""
    if not isinstance(model, nn.Module):
        return []
    found: list[Run] = []
    hooks = Hooks()

    def note(name: str, module: nn.Module, output: object) -> None:
        found.append(Run(name, module, tuple(output.shape) if isinstance(output, Tensor) else ()))

    with settled(), undone(hooks.remove):
        for name, module in model.named_modules():
            if name and not isinstance(module, torch.jit.ScriptModule):
                hooks.after(module, lambda m, _, out, name=name: note(name, m, out))
        with no_trace(model, example), torch.no_grad():
            model(example)
    counts: dict[str, int] = {}
    for run in found:
        counts[run.name] = counts.get(run.name, 0) + 1
    return [run for run in found if counts[run.name] == 1]


def grad_cam_layer(runs: list[Run], example: Tensor) -> tuple[str | None, tuple[int, ...], str]:
    """The layer whose feature maps Grad-CAM weighs: the last one at the last convolution's resolution.

    The last convolution is the last that still has several positions: a convolution of 1 x 1 maps after pooling is the
    classifier. From there on to the last output of that resolution are activations and additions of residual blocks,
    which the classifier reads.

    Args:
        runs: of ``runs_of``.
        example: (1, C, ...).

    Returns:
        ``(name, sizes of its maps, "")``, or ``(None, (), why there is none)``.
    """
    spatial = example.shape[2:]
    if not spatial:
        return None, (), "its inputs are rows: there are no positions that a convolution could keep apart"
    maps = [
        run
        for run in runs
        if len(run.shape) == example.dim()
        and math.prod(run.shape[2:]) > 1
        and all(have <= whole for have, whole in zip(run.shape[2:], spatial, strict=True))
    ]
    convolutions = [i for i, run in enumerate(maps) if isinstance(run.module, _ConvNd)]
    if not convolutions:
        return None, (), "no convolution with several positions runs in it as a module"
    last = maps[convolutions[-1]]
    if len(convolutions) == 1 and _cuts_into_patches(last.module):
        return None, (), "its only convolution cuts the image into patches; the layers after it have no feature maps"
    at_its_resolution = [run for run in maps[convolutions[-1] :] if run.shape[2:] == last.shape[2:]]
    return at_its_resolution[-1].name, last.shape[2:], ""


def no_guided_backprop(model: Model) -> str | None:
    """Why guided backpropagation would not be what it is called, or ``None``."""
    if not isinstance(model, nn.Module):
        return "the model is a function: its activations cannot be reached"
    kinds = (nn.ReLU, HalfHuberReLU)
    if not any(isinstance(module, kinds) for module in model.modules()):
        return "it has no ReLU or half-Huber ReLU as a module, whose gradient would be clipped"
    functional = [where for where in _functional_relus(model) if not _within_half_huber(model, where)]
    if functional:
        return f"it applies ReLU as a function, whose gradient cannot be clipped ({functional[0]})"
    return None


def _within_half_huber(model: nn.Module, where: str) -> bool:
    """Whether a place that calls ReLU, "pre.1: HalfHuberReLU, calls ...", is a half-Huber ReLU's own code."""
    return isinstance(dict(model.named_modules()).get(where.partition(":")[0], model), HalfHuberReLU)


def _cuts_into_patches(convolution: nn.Module) -> bool:
    kernel, stride = convolution.kernel_size, convolution.stride
    return kernel == stride and math.prod(kernel) > 1  # type: ignore[arg-type]
