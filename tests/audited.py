"""Small networks for the audit's tests, one for each kind of input, and methods set up for them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU

CLASSES = 3
_CONVOLUTIONS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_POOLINGS = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}
_NORMS = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}

SHAPES = {"row": (6,), "sequence": (2, 12), "grey": (1, 7, 6), "colour": (3, 8, 8), "volume": (1, 6, 5, 4)}


def build(
    kind: str, activation: Callable[[], nn.Module] = HalfHuberReLU, *, outputs: int = CLASSES, seed: int = 0
) -> nn.Module:
    """A network for inputs of one of ``SHAPES``, its last layer a 1 x ... x 1 convolution of pooled maps."""
    axes = len(SHAPES[kind]) - 1
    channels = SHAPES[kind][0]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if not axes:
            return nn.Sequential(nn.Linear(channels, 8), activation(), nn.Dropout(), nn.Linear(8, outputs)).eval()
        convolution = _CONVOLUTIONS[axes]
        return nn.Sequential(
            convolution(channels, 5, 3, padding=1),
            _NORMS[axes](5),
            activation(),
            convolution(5, 4, 3, stride=2, padding=1),
            activation(),
            _POOLINGS[axes](1),
            convolution(4, outputs, 1),
            nn.Flatten(),
        ).eval()


def batch(kind: str, size: int = 3, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Inputs in [0, 1] and a target for each."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(size, *SHAPES[kind], generator=generator)
    return images, torch.randint(CLASSES, (size,), generator=generator)


def linear(weight: Tensor) -> nn.Module:
    """Logits ``weight @ input``, the weight (C, ...) of an input's shape."""
    layer = nn.Linear(weight[0].numel(), len(weight), bias=False, dtype=weight.dtype)
    layer.weight.data.copy_(weight.flatten(1))
    return nn.Sequential(nn.Flatten(), layer).eval()
