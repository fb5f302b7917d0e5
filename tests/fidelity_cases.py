"""Models whose answer is known and methods that are right or wrong by construction."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_lipschitz.metrics import Explain, Make


class LeftHalf(nn.Module):
    """Two classes, log-odds ``w . x - b`` of the first; of 6 x 6 pictures it sees the left half only."""

    def __init__(self, *, channels: int = 1, offset: float = 0.0) -> None:
        super().__init__()
        weight = torch.linspace(1, 2, 36 * channels, dtype=torch.float64).reshape(1, channels, 6, 6)
        self.weight = nn.Parameter(weight * LEFT)
        self.offset = offset

    def forward(self, inputs: Tensor) -> Tensor:
        margin = (inputs * self.weight).flatten(1).sum(1) - self.offset
        return torch.stack([margin, torch.zeros_like(margin)], 1)


LEFT = torch.zeros(6, 6, dtype=torch.bool)
LEFT[:, :3] = True


def gradients(model: nn.Module) -> Explain:
    """The target's logit, differentiated."""

    def explain(images: Tensor, targets: Tensor) -> Tensor:
        images.requires_grad_()
        found: Tensor = torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]
        return found

    return explain


def times_inputs(model: nn.Module) -> Explain:
    """InputXGradient."""
    explain = gradients(model)
    return lambda images, targets: images.detach() * explain(images, targets)


def always(attributions: Tensor) -> Explain:
    """The same explanation, (...), for every image."""
    return lambda images, _: attributions.expand(len(images), *attributions.shape)


def makes(explain: Explain) -> Make:
    """A method that does not look at the model."""
    return lambda _: explain


def pictures(count: int, *, seed: int = 0, channels: int = 1) -> tuple[Tensor, Tensor]:
    """Pictures (count, channels, 6, 6) in [0, 1], float64, and the first class as their target."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand(count, channels, 6, 6, generator=generator, dtype=torch.float64)
    return images, torch.zeros(count, dtype=torch.int64)
