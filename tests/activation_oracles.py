"""What DeepLift, LRP and guided backpropagation say by their definitions, with nothing of Captum's in it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU


def activate(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Value and derivative of one activation, from the formula."""
    if isinstance(layer, HalfHuberReLU):
        clamped = x.clamp(0, layer.delta)
        return clamped * (x - clamped / 2) / layer.delta, clamped / layer.delta
    assert isinstance(layer, nn.ReLU)
    return x.clamp(min=0), (x > 0).to(x.dtype)


def _forward(layers: nn.Sequential, x: Tensor) -> list[Tensor]:
    values = [x]
    for layer in layers:
        x = x @ layer.weight.T + (0 if layer.bias is None else layer.bias) if isinstance(layer, nn.Linear) else (
            activate(layer, x)[0]
        )  # fmt: skip
        values.append(x)
    return values


@torch.no_grad()
def rescale(layers: nn.Sequential, image: Tensor, baseline: Tensor, target: int) -> Tensor:
    """DeepLIFT by the rescale rule for one image, (F,), of a chain of linear layers and activations."""
    here, there = _forward(layers, image), _forward(layers, baseline)
    multiplier = torch.zeros_like(here[-1])
    multiplier[target] = 1
    for i in reversed(range(len(layers))):
        layer = layers[i]
        if isinstance(layer, nn.Linear):
            multiplier = multiplier @ layer.weight
            continue
        for j in range(len(multiplier)):
            step = here[i][j] - there[i][j]
            slope = activate(layer, here[i])[1][j] if step == 0 else (here[i + 1][j] - there[i + 1][j]) / step
            multiplier[j] *= slope
    return multiplier * (image - baseline)


@torch.no_grad()
def relevance(layers: nn.Sequential, image: Tensor, target: int, epsilon: float = 1e-9) -> Tensor:
    """LRP's epsilon rule for one image, (F,): a neuron shares out its relevance by what each input brought to it."""
    values = _forward(layers, image)
    shared = torch.zeros_like(values[-1])
    shared[target] = values[-1][target]
    for i in reversed(range(len(layers))):
        layer = layers[i]
        if not isinstance(layer, nn.Linear):
            continue  # relevance passes an activation unchanged
        received = torch.zeros_like(values[i])
        for k in range(len(shared)):
            total = values[i + 1][k]
            total = total + epsilon if total >= 0 else total - epsilon
            for j in range(len(received)):
                received[j] += values[i][j] * layer.weight[k, j] / total * shared[k]
        shared = received
    return shared


class _Clipped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Module, guided: bool) -> Tensor:
        value, slope = activate(layer, x)
        ctx.factor = slope if guided else torch.ones_like(slope)
        return value

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return ctx.factor * gradients[0].clamp(min=0), None, None


class _Clipping(nn.Module):
    def __init__(self, layer: nn.Module, *, guided: bool) -> None:
        super().__init__()
        self.layer = layer
        self.guided = guided

    def forward(self, x: Tensor) -> Tensor:
        return _Clipped.apply(x, self.layer, self.guided)


def clipped_gradient(model: nn.Module, inputs: Tensor, target: Tensor | int, *, guided: bool) -> Tensor:
    """Guided backpropagation (or deconvolution) through a copy of the model that clips in its activations' backward."""
    model = copy.deepcopy(model)
    made: dict[nn.Module, nn.Module] = {}
    for path, module in list(model.named_modules(remove_duplicate=False)):
        if isinstance(module, (HalfHuberReLU, nn.ReLU)):
            model.set_submodule(path, made.setdefault(module, _Clipping(module, guided=guided)))
    leaf = inputs.detach().clone().requires_grad_()
    logits = model(leaf)
    columns = torch.as_tensor(target).expand(len(inputs))
    (gradient,) = torch.autograd.grad(logits.gather(1, columns[:, None]).sum(), leaf)
    return gradient
