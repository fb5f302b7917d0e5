"""The networks of the recipes: the paper's ResNet-44, and others of its family."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.models import PreActBlock, PreActResNet44
from cifar10_training.recipe import Recipe

_ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "half_huber": HalfHuberReLU, "silu": nn.SiLU}
_PAPERS = ((16, 32, 64), 7, 1)  # widths, blocks, stride of the first convolution


class PreActResNet(nn.Module):
    """A pre-activation ResNet of any width and depth, with the paper's blocks and initialisation.

    Args:
        recipe: names widths, blocks in a stage, the first convolution's stride and the activation.

    Shape:
        (N, 3, 32, 32), RGB in [0, 1], to (N, 10).
    """

    input_offset: Tensor

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        activation = _ACTIVATIONS[recipe.activation]
        # The paper's network knows how to normalise and to initialise.
        self.register_buffer("input_offset", PreActResNet44().input_offset)
        channels = recipe.widths[0]
        layers: list[nn.Module] = [nn.Conv2d(3, channels, 3, recipe.first_stride, padding=1, bias=False)]
        for stage, width in enumerate(recipe.widths):
            for block in range(recipe.blocks):
                stride = 2 if stage and not block else 1
                layers.append(PreActBlock(channels, width, stride, activation))
                channels = width
        layers += [nn.BatchNorm2d(channels), activation(), nn.AdaptiveAvgPool2d(1), nn.Conv2d(channels, 10, 1)]
        self.pipe = nn.Sequential(*layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
        for module in self.modules():
            if isinstance(module, PreActBlock):
                nn.init.zeros_(module.main[-1].get_parameter("weight"))

    def forward(self, inputs: Tensor) -> Tensor:
        mean, std = self.input_offset[:, None, :, None, None]
        logits: Tensor = self.pipe((inputs - mean) / std)
        return logits.flatten(1)


def build_network(recipe: Recipe, *, seed: int) -> nn.Module:
    """An untrained network, the same for the same seed; torch's global random state stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if (recipe.widths, recipe.blocks, recipe.first_stride) == _PAPERS:
            return PreActResNet44(activation=_ACTIVATIONS[recipe.activation])
        return PreActResNet(recipe)
