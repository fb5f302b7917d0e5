"""The attacks as the tests make them, and a model whose smallest perturbation is known."""

import math

import torch
from torch import nn

from captum_lipschitz_advlib import AdvLibDDN, AdvLibFMN, AdvLibPDGD, AdvLibPDPGD

# What each is made with here, and how much too large its answers may be on two linear classes.
ATTACKS = {
    "DDN": (AdvLibDDN, {"steps": 100}, 0.01),
    "FMN": (AdvLibFMN, {"steps": 100, "overshoot": 1.01}, 0.001),
    "PDGD": (AdvLibPDGD, {"steps": 200}, 0.3),
    "PDPGD": (AdvLibPDPGD, {"steps": 200}, 0.4),
}
SHAPE = (3, 4, 4)


def make(name: str, **settings):
    attack, defaults, _ = ATTACKS[name]
    return attack(**(defaults | settings))


class Linear(nn.Module):
    """``z = W x + b`` on images."""

    def __init__(self, classes: int, *, gain: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        features = math.prod(SHAPE)
        self.weight = nn.Parameter(gain * torch.randn(classes, features, generator=generator) / math.sqrt(features))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.flatten(1) @ self.weight.T + self.bias


def grey_images(model: nn.Module, count: int = 12, dtype: torch.dtype = torch.float32):
    """Images near the middle of the box, so that the nearest boundary lies within it, and the model's own labels."""
    images = 0.5 + 0.02 * torch.randn(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=dtype)
    with torch.no_grad():
        return images, model(images).argmax(1)


def exact(model: Linear, images: torch.Tensor, labels: torch.Tensor, order: float = 2) -> torch.Tensor:
    """L2 distance to the nearest boundary: min over the other classes of ``(z_y - z_j) / |w_y - w_j|``."""
    dual = 1 if math.isinf(order) else 2
    with torch.no_grad():
        logits = model(images)
        own = logits.gather(1, labels[:, None])
        lengths = (model.weight[labels][:, None] - model.weight[None]).norm(p=dual, dim=2)
        return ((own - logits) / lengths).scatter(1, labels[:, None], math.inf).amin(1)
