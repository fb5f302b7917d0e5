"""The paper's walk against a slow re-implementation."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from oracles import fixed_size_walk
from strategies import Case, cases

from captum_lipschitz import PaperAttack
from captum_lipschitz.attacks.paper import shrinking_steps
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import RMSE


def test_step_sizes_shrink_linearly_and_sum_to_the_path() -> None:
    seen = []

    def look(delta: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append(delta.item())
        return torch.ones(1, 1), torch.zeros(1, dtype=torch.bool)

    last = shrinking_steps(look, torch.zeros(1, 1, dtype=torch.float64), norm=RMSE(), n_steps=4, path_length=3.0)
    steps = torch.diff(torch.tensor([*seen, last.item()]))
    torch.testing.assert_close(steps, 2 * 3.0 * torch.tensor([4.0, 3.0, 2.0, 1.0]) / 20)


@given(cases())
def test_fixed_size_toward_a_class_is_the_published_walk(case: Case) -> None:
    from captum_lipschitz import AdversarialAttribution

    attributions = AdversarialAttribution(case.model).attribute(
        case.inputs, target=case.labels, rho=0.05, n_steps=12, overshoot=3.0
    )
    slow = fixed_size_walk(case.model, case.inputs, case.labels, rho=0.05, overshoot=3.0, n_steps=12)
    torch.testing.assert_close(attributions, slow, rtol=1e-6, atol=1e-9)


@given(cases())
def test_the_two_objectives_are_the_same_attack_in_float64(case: Case) -> None:
    one, other = (
        PaperAttack(steps=40, rho=1.0, objective=objective)(case.model, case.inputs, case.labels)
        for objective in ("log_odds", "cross_entropy")
    )
    torch.testing.assert_close(one.distances, other.distances, rtol=1e-6, atol=1e-9)


def test_fixed_mode_has_the_size_it_is_given() -> None:
    model = torch.nn.Linear(4, 2).double()
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = model(inputs).argmax(1)
    result = PaperAttack(mode="fixed", rho=50.0, steps=7, momentum=0.0)(model, inputs, labels)
    torch.testing.assert_close(result.distances, torch.full((6,), 50.0, dtype=torch.float64))
    assert not PaperAttack(mode="fixed", rho=1e-6, steps=7)(model, inputs, labels).found.any()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1"),
        ({"rho": 0.0}, "rho: expected a positive size"),
        ({"overshoot": -1.0}, "overshoot: expected a positive factor"),
        ({"momentum": 1.0}, r"momentum: expected a value in \[0, 1\)"),
        ({"mode": "smallest"}, "mode: expected 'minimal' or 'fixed', got 'smallest'"),
        ({"objective": "loss"}, "objective: expected one of"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        PaperAttack(**setting)  # type: ignore[arg-type]
