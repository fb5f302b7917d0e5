"""What every component leaves behind, and how to look at it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def snapshot(model: nn.Module, *tensors: Tensor) -> dict[str, Any]:
    """Everything that contract 1 of DESIGN says must stay as it was."""
    return {
        "modes": [module.training for module in model.modules()],
        "requires_grad": [p.requires_grad for p in model.parameters()] + [t.requires_grad for t in tensors],
        "grads": [None if p.grad is None else p.grad.clone() for p in [*model.parameters(), *tensors]],
        "buffers": [b.clone() for b in model.buffers()],
        "parameters": [p.detach().clone() for p in model.parameters()],
        "values": [t.detach().clone() for t in tensors],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "rng": torch.get_rng_state(),
        "dtype": torch.get_default_dtype(),
        "grad_mode": torch.is_grad_enabled(),
    }


def assert_unchanged(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Compare two snapshots, to the bit."""
    for name, old in before.items():
        assert _equal(old, after[name]), f"{name} changed"


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and torch.equal(a, b)
    if isinstance(a, list):
        return len(a) == len(b) and all(_equal(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def half_frozen(model: nn.Module) -> nn.Module:
    """Train mode, with one submodule frozen in evaluation mode and gradients about: a state worth keeping."""
    model.train()
    modules = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    modules[0].eval()
    parameters = list(model.parameters())
    parameters[0].requires_grad_(False)
    parameters[1].grad = torch.ones_like(parameters[1])
    return model


class Breaking(nn.Module):
    """A model that raises at its n-th call."""

    def __init__(self, model: nn.Module, calls: int, error: BaseException) -> None:
        super().__init__()
        self.model = model
        self.calls = calls
        self.error = error

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls -= 1
        if self.calls < 0:
            raise self.error
        output: Tensor = self.model(inputs)
        return output
