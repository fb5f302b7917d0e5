"""Small networks with half-Huber ReLUs, in the places where Captum's methods find activations hard."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from hypothesis import strategies as st
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU

Activations = tuple[Callable[[], nn.Module], Callable[[], nn.Module]]


KINDS: dict[str, Activations] = {
    "half-Huber": (HalfHuberReLU, partial(HalfHuberReLU, 1.5)),
    "mixed": (nn.ReLU, HalfHuberReLU),
}


kinds = st.sampled_from(sorted(KINDS))


class SmallHalfHuber(HalfHuberReLU):
    """A subclass, whose exact type stands in no table."""

    def __init__(self) -> None:
        super().__init__(0.1)


def build_chain(seed: int, kind: str = "half-Huber", *, bias: bool = True) -> nn.Sequential:
    """5 features, hidden layers of 7 and 6, 3 classes; weights large enough to use all of h."""
    first, second = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        linear = partial(nn.Linear, bias=bias, dtype=torch.float64)
        model = nn.Sequential(linear(5, 7), first(), linear(7, 6), second(), linear(6, 3))
        for parameter in model.parameters():
            parameter.data.normal_()
    return model


class Convolutional(nn.Module):
    """BatchNorm, both kinds of pooling, and half-Huber ReLUs; flattened without a module, as LRP needs."""

    def __init__(self, activation: Callable[[], nn.Module] = HalfHuberReLU) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(2, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            activation(),
            nn.MaxPool2d(2),  # non-linear too, and right beside two activations
            activation(),
            nn.Conv2d(6, 8, 3, padding=1),
            activation(),
            nn.AvgPool2d(2),
        )
        self.head = nn.Linear(8 * 4, 4)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(inputs).flatten(1))
        return logits


def build_convolutional(activation: Callable[[], nn.Module] = HalfHuberReLU) -> Convolutional:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Convolutional(activation).double()
        for _ in range(3):  # running statistics that differ from their start
            model(torch.randn(16, 2, 8, 8, dtype=torch.float64))
    return model.eval()


class Residual(nn.Module):
    """An activation beside a skip connection, one after another one, and before a plain ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = (nn.Linear(5, 5, dtype=torch.float64) for _ in range(2))
        self.beside, self.after = HalfHuberReLU(), nn.Sequential(HalfHuberReLU(1.0), HalfHuberReLU(), nn.ReLU())

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.first(inputs)
        logits: Tensor = self.last(self.after(self.beside(hidden) - 2 * hidden))
        return logits


class Reusing(nn.Module):
    """One activation module at two places."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = (nn.Linear(5, 5, dtype=torch.float64) for _ in range(3))
        self.activation = HalfHuberReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.third(self.activation(self.second(self.activation(self.first(inputs)))))
        return logits


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


assert_close = partial(torch.testing.assert_close, rtol=1e-9, atol=1e-11)


def outputs_differ(model: nn.Module, inputs: Tensor, baselines: Tensor, target: int) -> Tensor:
    with torch.no_grad():
        return model(inputs)[:, target] - model(baselines)[:, target]
