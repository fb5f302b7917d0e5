"""Regularizers beside one another, and compiled models that have no length."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.optimizer import _global_optimizer_pre_hooks as hooks
from versions import compiles

from captum_lipschitz.training import LipschitzRegularizer, RegularizedModule


class Wrapped(nn.Module):
    """Unlike ``nn.Sequential`` it has no ``len()``."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 3))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layers(inputs)


def trained(regularizers: list[LipschitzRegularizer], steps: int) -> list[float]:
    torch.manual_seed(0)
    model, labels = Wrapped(), torch.zeros(8, dtype=torch.long)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    losses = []
    for step in range(steps):
        inputs = torch.rand(8, 4, requires_grad=True)
        logits = model(inputs)
        one = regularizers[step % len(regularizers)]
        loss = one(logits, inputs, labels, task_loss=F.cross_entropy(logits, labels)).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


def test_two_regularizers_that_skip_steps_watch_the_same_optimiser() -> None:
    """One stops watching first, within the other's sight."""
    before = copy.copy(hooks)
    pair = [LipschitzRegularizer(strength=1.0, every=every) for every in (2, 3)]
    assert len(trained(pair, 24)) == 24
    assert set(hooks) - set(before) == set()


@compiles
@pytest.mark.parametrize("every", [1, 2])
def test_a_compiled_model_without_a_length_skips_steps_and_evaluates(every: int) -> None:
    torch.manual_seed(0)
    module = RegularizedModule(Wrapped(), LipschitzRegularizer(strength=1.0, every=every))
    module.compile(backend="aot_eager")
    inputs, labels = torch.rand(8, 4), torch.zeros(8, dtype=torch.long)
    penalties = []
    for _ in range(2):
        logits, penalty = module(inputs, labels)
        module.regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.backward()
        penalties.append(penalty.item())
    assert penalties[0] > 0
    assert (penalties[1] == 0) == (every == 2)
    assert torch.allclose(module.eval()(inputs).logits, module.model(inputs))
