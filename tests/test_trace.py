"""What ``no_trace`` puts back besides what the contract checks of ``captum_lipschitz.testing`` look at."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from captum_lipschitz import AdversarialAttribution, accuracy_robustness_area
from captum_lipschitz.attacks import MinimumNormAttack


@pytest.mark.parametrize("call", ["attribution", "area"])
def test_a_call_within_autocast_takes_no_gradient_from_what_follows(call: str) -> None:
    torch.manual_seed(0)
    model, images, labels = nn.Linear(4, 3), torch.rand(6, 4), torch.arange(6) % 3
    with torch.autocast("cpu", dtype=torch.bfloat16):
        if call == "attribution":
            AdversarialAttribution(model).attribute(images, labels, n_steps=2)
        else:
            accuracy_robustness_area(model, (images, labels), attack=MinimumNormAttack(effort="fast"))
        F.cross_entropy(model(images), labels).backward()
    alone = nn.Linear(4, 3)
    alone.load_state_dict(model.state_dict())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        F.cross_entropy(alone(images), labels).backward()
    assert model.weight.grad is not None
    assert torch.equal(model.weight.grad, alone.weight.grad)
