"""The strength follows a change of resolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_lipschitz import LipschitzRegularizer, RegularizedModule


def _pooled() -> nn.Module:
    """Looks at an image's average alone, so that it is the same function at each resolution."""
    torch.manual_seed(0)
    return nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, 16), nn.GELU(), nn.Linear(16, 5)).double()


@pytest.mark.parametrize("power", [1, 2, 3])
@pytest.mark.parametrize("wrapped", [False, True])
def test_the_same_function_has_the_same_penalty_at_each_resolution(power: float, *, wrapped: bool) -> None:
    small = torch.rand(4, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(4)
    model = _pooled()
    regularizer = LipschitzRegularizer(strength=1.0, power=power, draws_per_image="all")
    penalties = []
    for images in (small, F.interpolate(small, scale_factor=3), F.interpolate(small, scale_factor=2), small):
        if wrapped:
            penalties.append(RegularizedModule(model, regularizer)(images, labels).penalty)
        else:
            leaf = images.clone().requires_grad_()
            penalties.append(regularizer.penalty(model(leaf), leaf, labels))
    for penalty in penalties[1:]:
        torch.testing.assert_close(penalty, penalties[0], rtol=1e-10, atol=0)


def test_a_checkpoint_keeps_the_first_resolution() -> None:
    first, second = (LipschitzRegularizer(strength=1.0, draws_per_image="all") for _ in range(2))
    model, labels = _pooled(), torch.arange(4)
    small = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    large = F.interpolate(small, scale_factor=2).requires_grad_()
    leaf = small.clone().requires_grad_()
    expected = first.penalty(model(leaf), leaf, labels)
    assert first.state_dict()["features"] == 192
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.penalty(model(large), large, labels), expected)
    old = {key: value for key, value in first.state_dict().items() if key != "features"}
    second.load_state_dict(old)  # a checkpoint of before: the next batch sets the scale
    assert second.penalty(model(large), large, labels) < 0.1 * expected
