"""Attacks for adversarial training, and networks and images to try them on."""

from __future__ import annotations

import copy

import torch
from strategies import build_batch, build_convolutional
from torch import Tensor, nn

from captum_lipschitz import (
    HalfHuberReLU,
    MinimumNormAttack,
    PaperAttack,
)

FIXED = PaperAttack(mode="fixed", steps=7, rho=0.05, momentum=0.0, objective="cross_entropy")
ATTACKS = [None, FIXED, MinimumNormAttack(effort="fast")]


def network(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    """In train mode, running averages far from any batch's."""
    model = build_convolutional(seed)
    model[3].p = dropout  # type: ignore[index, union-attr]
    return model.train()


def batch(model: nn.Module, seed: int, size: int = 10) -> tuple[Tensor, Tensor]:
    """Images with the labels that the model decides on in train mode, but for the first, which is wrong."""
    inputs, _ = build_batch(seed, size)
    labels = copy.deepcopy(model)(inputs).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    return inputs, labels


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def flat_network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), HalfHuberReLU(), nn.Linear(8, 3)).double()


def chosen(generator_seed: int, size: int) -> Tensor:
    return torch.rand(size, generator=generator(generator_seed)) < 0.5
