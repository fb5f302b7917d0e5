"""Hypothesis strategies shared by the tests: small models, batches, settings, all in float64 unless said."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU

seeds = st.integers(0, 2**31 - 1)


@dataclass(frozen=True)
class Case:
    """A model in evaluation mode with a batch it can classify."""

    model: nn.Module
    inputs: Tensor
    labels: Tensor


def build_convolutional(seed: int, *, num_classes: int = 4, dtype: torch.dtype = torch.float64) -> nn.Module:
    """A small convolutional network with BatchNorm, dropout and a smooth activation, weights from ``seed``."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            HalfHuberReLU(),
            nn.Dropout(0.1),
            nn.Flatten(),
            nn.Linear(6 * 25, num_classes),
        ).to(dtype)
        for _ in range(3):  # running statistics that differ from their start
            model(torch.randn(16, 2, 5, 5, dtype=dtype))
    return model.eval()


def build_batch(
    seed: int, size: int, num_classes: int = 4, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor]:
    """Images of shape (size, 2, 5, 5) in [0, 1] and labels."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.rand(size, 2, 5, 5, generator=generator, dtype=dtype)
    return inputs, torch.randint(num_classes, (size,), generator=generator)


@st.composite
def cases(draw: st.DrawFn, min_size: int = 1, max_size: int = 6) -> Case:
    """A small convolutional network and a batch."""
    inputs, labels = build_batch(draw(seeds), draw(st.integers(min_size, max_size)))
    return Case(build_convolutional(draw(seeds)), inputs, labels)


@st.composite
def linear_cases(draw: st.DrawFn) -> Case:
    """A linear model with 2 to 6 classes on flat inputs; labels are its own decisions."""
    generator = torch.Generator().manual_seed(draw(seeds))
    features, num_classes = draw(st.integers(3, 20)), draw(st.integers(2, 6))
    model = nn.Linear(features, num_classes).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(num_classes, features, generator=generator, dtype=torch.float64))
        model.bias.copy_(torch.randn(num_classes, generator=generator, dtype=torch.float64))
        inputs = torch.randn(draw(st.integers(1, 5)), features, generator=generator, dtype=torch.float64)
        labels = model(inputs).argmax(1)
    return Case(model.eval(), inputs, labels)


distances = st.lists(st.one_of(st.floats(0, 10, allow_nan=False), st.just(float("inf"))), min_size=1, max_size=40).map(
    lambda values: torch.tensor(values, dtype=torch.float64)
)
