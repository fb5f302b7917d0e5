"""The paper's CIFAR network."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from captum_lipschitz._tensors import read_safetensors
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.nn import HalfHuberReLU

_CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)
_CIFAR10_STD = (0.2470, 0.2435, 0.2616)


class PreActBlock(nn.Module):
    """``main(pre(x)) + shortcut``; the shortcut is x, or a convolution of ``pre(x)`` where the shape changes.

    Args:
        in_channels: of the inputs, (N, in_channels, H, W).
        out_channels: of what comes out, (N, out_channels, H / stride, W / stride).
        stride: of the first convolution.
        activation: makes one activation.

    References:
        He et al. 2016, arXiv 1603.05027 (pre-activation); Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, activation: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.BatchNorm2d(in_channels), activation())
        self.main = nn.Sequential(
            _convolution(in_channels, out_channels, stride),
            nn.BatchNorm2d(out_channels),
            activation(),
            _convolution(out_channels, out_channels),
        )
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = _convolution(in_channels, out_channels, stride) if changes else None

    def forward(self, inputs: Tensor) -> Tensor:
        activated = self.pre(inputs)
        shortcut = inputs if self.shortcut is None else self.shortcut(activated)
        return torch.add(self.main(activated), shortcut)


class PreActResNet44(nn.Module):
    """The pre-activation ResNet-44 of the paper's CIFAR-10 experiments, normalisation included.

    Args:
        num_classes: number of logits.
        activation: makes one activation; ``HalfHuberReLU`` (the paper's robust networks) or ``nn.ReLU``.
        mean: per-channel mean subtracted from the inputs, which are RGB in [0, 1].
        std: per-channel standard deviation that they are divided by.

    Shape:
        (N, 3, 32, 32) to (N, num_classes).

    Convolutions start Kaiming-uniform, and the last one of every residual branch at zero, as published.

    Example:
        >>> PreActResNet44()(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 10])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods; He et al. 2016, arXiv 1603.05027.
    """

    input_offset: Tensor

    def __init__(
        self,
        num_classes: int = 10,
        activation: Callable[[], nn.Module] = HalfHuberReLU,
        *,
        mean: tuple[float, float, float] = _CIFAR10_MEAN,
        std: tuple[float, float, float] = _CIFAR10_STD,
    ) -> None:
        super().__init__()
        self.register_buffer("input_offset", torch.tensor([mean, std]))
        self.pipe = nn.Sequential(
            _convolution(3, 16),
            _stage(16, 16, 1, activation),
            _stage(16, 32, 2, activation),
            _stage(32, 64, 2, activation),
            nn.BatchNorm2d(64),
            activation(),
            nn.AvgPool2d(8),
            nn.Conv2d(64, num_classes, 1),
        )
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

    @classmethod
    def with_relu(cls) -> PreActResNet44:
        """The network of the paper's plainly trained models: ReLU, 10 classes. For tools that take a callable's name.

        Example:
            >>> any(isinstance(module, torch.nn.ReLU) for module in PreActResNet44.with_relu().modules())
            True
        """
        return cls(activation=nn.ReLU)

    @classmethod
    def from_safetensors(cls, path: str | Path, activation: Callable[[], nn.Module] | None = None) -> PreActResNet44:
        """Load a network, in evaluation mode, from a file of the paper's authors or of one's own.

        Args:
            path: a safetensors file with this network's state.
            activation: makes one activation. ``None`` reads it off as the authors wrote it: half-Huber ReLU where
                the file has its delta (keys ``...d``), ReLU where not.

        Returns:
            The network, in evaluation mode.

        Raises:
            InvalidInputError: the file cannot be read, or its tensors are not those of this network.
        """
        try:
            state = read_safetensors(path)
            deltas = {float(state.pop(key)) for key in list(state) if key.endswith(".d")}
        except (SafetensorError, OSError, ValueError, KeyError, AttributeError, TypeError, RuntimeError) as error:
            raise InvalidInputError(f"path: {path} cannot be read as safetensors ({error})") from error
        if len(deltas) > 1:
            raise InvalidInputError(f"path: expected one half-Huber delta throughout, got {sorted(deltas)}")
        if "pipe.7.bias" not in state or state["pipe.7.bias"].dim() != 1 or not len(state["pipe.7.bias"]):
            raise InvalidInputError(f"path: {path} does not hold a PreActResNet44 (no vector 'pipe.7.bias')")
        if activation is None:
            activation = partial(HalfHuberReLU, deltas.pop()) if deltas else nn.ReLU
        model = cls(len(state["pipe.7.bias"]), activation)
        try:
            model.load_state_dict(state)
        except RuntimeError as error:
            raise InvalidInputError(f"path: {path} does not hold a PreActResNet44: {error}") from error
        return model.eval()


def _convolution(in_channels: int, out_channels: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=False)


def _stage(in_channels: int, out_channels: int, stride: int, activation: Callable[[], nn.Module]) -> nn.Sequential:
    blocks = [PreActBlock(in_channels, out_channels, stride, activation)]
    blocks += [PreActBlock(out_channels, out_channels, 1, activation) for _ in range(6)]
    return nn.Sequential(*blocks)
