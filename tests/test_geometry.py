"""Norms: sizes, steepest directions, projections, bounds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor

from captum_lipschitz import L2, RMSE, Bounds, Linf, Norm
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import as_norm, row_dot

NORMS = st.sampled_from([RMSE, L2, Linf])


def _random(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_sizes_by_hand() -> None:
    delta = torch.tensor([[3.0, 0.0, -4.0, 0.0]])
    assert RMSE().size(delta).item() == 2.5
    assert L2().size(delta).item() == 5.0
    assert Linf().size(delta).item() == 4.0


@given(seeds, NORMS, st.booleans())
def test_steepest_direction_has_size_one_and_the_largest_gain(seed: int, norm: type[Norm], scaled: bool) -> None:
    measure = norm(_random(seed + 1, 3, 4).abs() + 0.1 if scaled else None)
    gradient = _random(seed, 5, 3, 4)
    steepest = measure.steepest(gradient)
    torch.testing.assert_close(measure.size(steepest), torch.ones(5, dtype=torch.float64))
    others = measure.normalised(_random(seed + 2, 5, 3, 4))
    assert (row_dot(gradient, steepest) >= row_dot(gradient, others) - 1e-12).all()


@given(NORMS)
def test_tiny_and_zero_gradients(norm: type[Norm]) -> None:
    measure = norm()
    gradient = torch.tensor([[1e-30, -2e-30], [0.0, 0.0]])
    steepest = measure.steepest(gradient)
    torch.testing.assert_close(measure.size(steepest), torch.tensor([1.0, 0.0]))
    assert torch.equal(measure.normalised(torch.zeros(1, 2)), torch.zeros(1, 2))


@given(seeds, NORMS, st.booleans())
def test_projection_onto_a_hyperplane_is_on_it_and_nearest(seed: int, norm: type[Norm], scaled: bool) -> None:
    measure = norm(_random(seed + 3, 6).abs() + 0.1 if scaled else None)
    start, normal, offset = _random(seed, 4, 6), _random(seed + 1, 4, 6), _random(seed + 2, 4)
    limit = torch.full((4,), 1e6, dtype=torch.float64)
    point = measure.to_hyperplane(start, normal, offset, limit=limit)
    torch.testing.assert_close(row_dot(point, normal), offset)
    torch.testing.assert_close(
        measure.size(point - start), measure.distance_to_hyperplane(offset - row_dot(start, normal), normal)
    )
    # Any other point of the hyperplane is at least as far away.
    along = _random(seed + 4, 4, 6)
    along = along - (row_dot(along, normal) / row_dot(normal, normal))[:, None] * normal
    assert (measure.size(point + 0.1 * along - start) >= measure.size(point - start) - 1e-9).all()


@given(seeds, NORMS)
def test_projection_within_a_box_stays_there_and_reaches_the_plane_where_it_can(seed: int, norm: type[Norm]) -> None:
    measure = norm()
    normal = _random(seed, 4, 6)
    box = (torch.full((4, 6), -1.0, dtype=torch.float64), torch.full((4, 6), 1.0, dtype=torch.float64))
    reach = normal.abs().sum(1)
    limit = torch.full((4,), 1e3, dtype=torch.float64)
    point = measure.to_hyperplane(torch.zeros_like(normal), normal, 0.5 * reach, limit=limit, box=box)
    assert (point.abs() <= 1).all()
    torch.testing.assert_close(row_dot(point, normal), 0.5 * reach, rtol=1e-4, atol=1e-4)
    beyond = measure.to_hyperplane(torch.zeros_like(normal), normal, -2 * reach, limit=1e6 * limit, box=box)
    torch.testing.assert_close(row_dot(beyond, normal), -reach, rtol=1e-3, atol=1e-3)


def test_the_step_limit_holds() -> None:
    start, normal = torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])
    point = L2().to_hyperplane(start, normal, torch.tensor([5.0]), limit=torch.tensor([2.0]))
    assert torch.equal(point, torch.tensor([[2.0, 0.0]]))


def test_zero_normal_is_unreachable_and_moves_nothing() -> None:
    zero = torch.zeros(1, 2)
    assert L2().distance_to_hyperplane(torch.ones(1), zero).item() == math.inf
    moved = L2().to_hyperplane(torch.ones(1, 2), zero, torch.ones(1), limit=torch.ones(1))
    assert torch.equal(moved, torch.ones(1, 2))


def test_bounds() -> None:
    assert Bounds.of(None) is None
    assert Bounds.of((0, 1)) == Bounds(0.0, 1.0)
    with pytest.raises(InvalidInputError, match="lower < upper"):
        Bounds.of((1, 0))
    with pytest.raises(InvalidTypeError, match="pair"):
        Bounds.of(3)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"within the bounds \[0.0, 1.0\]"):
        Bounds(0.0, 1.0).check(torch.tensor([1.5]))


def test_norms_by_name() -> None:
    assert isinstance(as_norm("rmse"), RMSE)
    assert as_norm(norm := Linf()) is norm
    with pytest.raises(InvalidInputError, match=r"\['l2', 'linf', 'rmse'\]"):
        as_norm("l3")
    with pytest.raises(InvalidInputError, match="its own scale"):
        as_norm(L2(), 2.0)
    with pytest.raises(InvalidInputError, match="positive"):
        L2(torch.tensor([1.0, 0.0]))


def test_attacks_take_the_limits_of_one_image() -> None:
    from captum_lipschitz import MinimumNormAttack

    model, inputs = torch.nn.Linear(3, 2), torch.rand(4, 3)
    with pytest.raises(InvalidInputError, match=r"bounds: expected limits that broadcast to one image, \(3,\)"):
        MinimumNormAttack(bounds=(inputs - 1, inputs + 1))(model, inputs, torch.zeros(4, dtype=torch.int64))
    low, high = torch.full((3,), -9.0), torch.tensor([9.0, 1.0, 9.0])
    found = MinimumNormAttack(bounds=(low, high))(model, inputs, model(inputs).argmax(1))
    assert found.found.all()
    assert (found.adversarial_inputs <= high).all()
    assert (found.adversarial_inputs >= low).all()
