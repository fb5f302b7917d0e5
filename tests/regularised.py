"""Networks that training is tested on, and their gradients: in eager float64, and by ``RegularizedModule``."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torchvision.models import VisionTransformer

from captum_lipschitz import HalfHuberReLU, LipschitzRegularizer, RegularizedModule

STRENGTH = 30.0


def cnn(activation: Callable[[], nn.Module] = HalfHuberReLU) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for wide, wider in ((3, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(wide, wider, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), activation()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, 10))


def vit() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(
            image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
        )
        nn.init.normal_(model.heads.head.weight, std=0.1)  # torchvision starts it at zero, where nothing has a slope
        return model


def batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 3, 16, 16, generator=generator).to(dtype), torch.randint(10, (12,), generator=generator)


def regularizer_of_30(**settings: Any) -> LipschitzRegularizer:
    return LipschitzRegularizer(strength=STRENGTH, generator=torch.Generator().manual_seed(3), **settings)


def flat_gradient(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def reference(model: nn.Module, *, strength: float = STRENGTH) -> Tensor:
    """Eager, float64, the loss written out."""
    model = copy.deepcopy(model).double()
    inputs, labels = batch()
    leaf = inputs.clone().requires_grad_()
    regularizer = LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(3))
    with sdpa_kernel(SDPBackend.MATH):
        logits = model(leaf)
    regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss.backward()
    return flat_gradient(model)


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def trained(model: nn.Module, dtype: torch.dtype = torch.float64, **compile_options: Any) -> Tensor:
    inputs, labels = batch(dtype)
    regularizer = regularizer_of_30()
    module = RegularizedModule(model, regularizer)
    if compile_options:
        module.compile(**compile_options)
    logits, penalty = module(inputs, labels)
    regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.backward()
    return flat_gradient(model)
