"""timm's networks, small, and the explicit loss that a regularised step is compared with."""

import copy

import timm
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz.training import draw, lipschitz_penalty

CLASSES = 5
FAMILIES = ["test_resnet", "test_convnext", "test_efficientnet", "test_vit"]  # timm's own smallest of each
ROUNDING = 2e-6


def create(name, seed=0, **settings):
    """A network with weights large enough that its slopes matter: timm starts heads and layer scales near zero."""
    torch.manual_seed(seed)
    if "vit" in name:
        settings = {"img_size": 32, **settings}
    if "resnet" in name:  # timm starts residual branches at zero, where the half of the gradients is zero
        settings = {"zero_init_last": False, **settings}
    model = timm.create_model(name, num_classes=CLASSES, **settings)
    with torch.no_grad():
        for parameter in model.get_classifier().parameters():
            nn.init.normal_(parameter, std=0.3)
    return model


def data(count=8, seed=1, size=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(count, 3, size, size, generator=generator), torch.randint(CLASSES, (count,), generator=generator)


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def explicit(model, images, target, criterion, *, strength, source=None, labels=None, zeta=0.2, **penalty):
    """The loss written out, with the published formula's draws from ``source``; its own copy of the network."""
    leaf = images.clone().requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        logits = model(leaf)
        draws = draw(len(images), CLASSES, tandem_probability=zeta, generator=source or generator())
        value = lipschitz_penalty(logits, leaf, target if labels is None else labels, draws=draws, **penalty)
        return criterion(logits, target) + strength * value, value


def explicit_gradient(model, images, target, criterion, *, strength, **settings):
    model = copy.deepcopy(model)
    model.zero_grad()
    loss, _ = explicit(model, images, target, criterion, strength=strength, **settings)
    loss.backward()
    return flat_gradient(model)


def flat_gradient(model):
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def flat_parameters(model):
    return torch.cat([p.detach().double().flatten() for p in model.parameters()])


def relative_error(found, expected):
    assert expected.norm() > 0
    return float(((found - expected).norm() / expected.norm()).detach())
