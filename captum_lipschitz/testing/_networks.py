"""Small seeded networks and images to check components on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

CLASSES = 4
SHAPE = (3, 6, 6)


class Network(nn.Module):
    """Layers that a careless component trips over: BatchNorm, dropout; smooth, so that rounding stays rounding.

    Attributes:
        runs: how often it was run.
        breaks_at: the run, from 1, at which ``error`` is raised; 0 for none.
    """

    def __init__(self, shape: Sequence[int] = SHAPE, *, dropout: float = 0.5) -> None:
        super().__init__()
        features = int(torch.Size(shape).numel())
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.first = nn.Linear(features, 12, dtype=torch.float32)
            self.normalised = nn.BatchNorm1d(12, dtype=torch.float32)
            self.dropout = nn.Dropout(dropout)
            self.last = nn.Linear(12, CLASSES, dtype=torch.float32)
        self.runs = 0
        self.breaks_at = 0
        self.error: BaseException = RuntimeError("the model broke")

    def forward(self, inputs: Tensor) -> Tensor:
        self.runs += 1
        if self.runs == self.breaks_at:
            raise self.error
        hidden = torch.tanh(self.normalised(self.first(inputs.flatten(1))))
        logits: Tensor = self.last(self.dropout(hidden))
        return logits


class Case(NamedTuple):
    """A model in evaluation mode, images (N, *shape) within [0, 1], and labels (N,)."""

    model: Network
    inputs: Tensor
    labels: Tensor


def build_case(
    shape: Sequence[int], device: torch.device | str, *, dtype: torch.dtype = torch.float32, dropout: float = 0.5
) -> Case:
    """Five images with the model's own labels, but for the last, which is misclassified to begin with."""
    model = Network(shape, dropout=dropout).to(device, dtype).eval()
    generator = torch.Generator().manual_seed(1)
    inputs = (0.5 + 0.1 * torch.randn(5, *shape, generator=generator, dtype=torch.float64)).clamp(0.02, 0.98)
    inputs = inputs.to(device, dtype)
    with torch.no_grad():
        labels = model(inputs).argmax(1)
    labels[-1] = (labels[-1] + 1) % CLASSES
    model.runs = 0
    return Case(model, inputs, labels)


def worth_keeping(case: Case) -> Case:
    """The same case in a state that must be left alone: train mode, a frozen part in evaluation mode, gradients."""
    case.model.train()
    case.model.normalised.eval()
    case.model.first.weight.requires_grad_(False)  # noqa: FBT003 - torch takes it by position
    case.model.last.bias.grad = torch.ones_like(case.model.last.bias)
    case.model.register_forward_hook(lambda *_: None)
    return case._replace(inputs=case.inputs.clone().requires_grad_())
