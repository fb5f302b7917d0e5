"""Norms: sizes, steepest directions, projections, bounds."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor

from captum_lipschitz import L2, RMSE, Linf, Norm
from captum_lipschitz.errors import InvalidInputError
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


def test_a_plane_out_of_reach_is_approached_as_far_as_the_limit_on_either_side() -> None:
    start, normal = torch.zeros(3, 2), torch.tensor([[2.0, 0.0]] * 3)
    offset, limit = torch.tensor([8.0, -8.0, 1.0]), torch.tensor([1.0, 2.0, 3.0])
    box = (torch.full((3, 2), -9.0), torch.full((3, 2), 9.0))
    for within in (None, box):
        moved = L2().to_hyperplane(start, normal, offset, limit=limit, box=within)
        torch.testing.assert_close(moved, torch.tensor([[1.0, 0.0], [-2.0, 0.0], [0.5, 0.0]]))


def test_within_a_box_the_free_features_make_up_for_those_at_its_wall() -> None:
    # The first feature stops at 0.1; the plane then asks 0.5 of the second, many times the move that both begin with.
    normal = torch.tensor([[1.0, 0.01]], dtype=torch.float64)
    wall = torch.tensor([[0.1, 9.0]], dtype=torch.float64)
    limit = torch.ones(1, dtype=torch.float64)
    for side in (1.0, -1.0):
        offset = torch.tensor([side * 0.105], dtype=torch.float64)
        moved = L2().to_hyperplane(torch.zeros_like(normal), normal, offset, limit=limit, box=(-wall, wall))
        torch.testing.assert_close(moved, side * torch.tensor([[0.1, 0.5]], dtype=torch.float64))
    short = L2().to_hyperplane(torch.zeros_like(normal), normal, offset, limit=0.1 * limit, box=(-wall, wall))
    assert L2().size(short).item() == pytest.approx(0.1)  # the limit is of the move that is left


def test_a_start_outside_the_box_is_brought_into_it_first() -> None:
    normal, offset = torch.tensor([[0.0, 1.0]]), torch.tensor([0.25])
    box = (torch.zeros(1, 2), torch.ones(1, 2))
    for outside, inside in ((5.0, 1.0), (-5.0, 0.0)):
        moved = L2().to_hyperplane(torch.tensor([[outside, 0.5]]), normal, offset, limit=torch.ones(1), box=box)
        torch.testing.assert_close(moved, torch.tensor([[inside, 0.25]]))


@given(seeds)
def test_the_euclidean_projection_within_a_box_is_the_nearest_point(seed: int) -> None:
    start, normal = _random(seed, 1, 5).clamp(-1, 1), _random(seed + 1, 1, 5)
    reach = normal.abs().sum(1)
    offset = reach * (2 * torch.rand(1, generator=torch.Generator().manual_seed(seed)).double() - 1)
    box = (-torch.ones_like(start), torch.ones_like(start))
    point = L2().to_hyperplane(start, normal, offset, limit=10 * torch.ones_like(offset), box=box)
    torch.testing.assert_close(row_dot(point, normal), offset, rtol=1e-6, atol=1e-6)
    others = _random(seed + 2, 200, 5).clamp(-1, 1)
    others = others + ((offset - row_dot(normal, others)) / row_dot(normal, normal))[:, None] * normal
    others = others[(others.abs() <= 1).all(1)]  # points of the plane in the box
    assert (L2().size(others - start) >= L2().size(point - start) - 1e-6).all()


def test_a_zero_normal_moves_nothing_within_a_box() -> None:
    normal = torch.tensor([[0.0, 0.0], [0.0, 2.0]])
    box = (torch.full((2, 2), -9.0), torch.full((2, 2), 9.0))
    offset, limit = torch.ones(2), torch.full((2,), 5.0)
    moved = L2().to_hyperplane(torch.full((2, 2), 3.0), normal, offset, limit=limit, box=box)
    torch.testing.assert_close(moved, torch.tensor([[3.0, 3.0], [3.0, 0.5]]))


@pytest.mark.parametrize(("norm", "size"), [(L2, 1.0), (RMSE, 1 / math.sqrt(12)), (Linf, 1 / math.sqrt(12))])
def test_the_unit_of_length_spread_evenly(norm: type[Norm], size: float) -> None:
    delta = torch.full((2, 3, 2, 2), 1 / math.sqrt(12))
    assert L2().size(delta).tolist() == pytest.approx([1.0, 1.0])
    assert norm().unit_in_l2(delta) == pytest.approx(size)
    assert norm().size(delta).tolist() == pytest.approx([size, size])
    assert norm().unit_in_l2(torch.ones(2, 1)) == norm().unit_in_l2(torch.ones(2, 0)) == 1.0


def test_distances_to_a_hyperplane_by_hand() -> None:
    value, normal = torch.tensor([5.0, -5.0, 0.0]), torch.tensor([[0.3, 0.4]] * 3)
    assert L2().distance_to_hyperplane(value, normal).tolist() == pytest.approx([10.0, 10.0, 0.0])
    assert RMSE().distance_to_hyperplane(value, normal).tolist() == pytest.approx([10 / math.sqrt(2)] * 2 + [0.0])
    assert Linf().distance_to_hyperplane(value, normal).tolist() == pytest.approx([5 / 0.7, 5 / 0.7, 0.0])
    scaled = Linf(torch.tensor([1.0, 10.0])).distance_to_hyperplane(value, normal)
    assert scaled.tolist() == pytest.approx([5 / 4.3, 5 / 4.3, 0.0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("norm", [RMSE, L2])
def test_small_perturbations_in_half_precision_have_a_size(norm: type[Norm], dtype: torch.dtype) -> None:
    delta = torch.full((1, 4), 2.0**-14, dtype=dtype)  # its square is 0 in half precision
    size = norm().size(delta)
    assert size.dtype == dtype
    assert size.item() == pytest.approx(2.0**-14 if norm is RMSE else 2.0**-13)


@given(NORMS, st.sampled_from([1e-30, 1e30]))
def test_the_steepest_direction_does_not_depend_on_the_gradients_length(norm: type[Norm], factor: float) -> None:
    gradient = torch.tensor([[1.0, -2.0, 3.0]])
    torch.testing.assert_close(norm().steepest(factor * gradient), norm().steepest(gradient))
    torch.testing.assert_close(L2().steepest(gradient), gradient / math.sqrt(14))
    falling = -factor * gradient.abs()  # nothing in it is positive
    torch.testing.assert_close(norm().steepest(falling), -norm().steepest(gradient.abs()))


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan, torch.tensor([1.0, -1.0])])
def test_scales_are_positive_and_finite(scale: float | Tensor) -> None:
    with pytest.raises(InvalidInputError, match="scale: expected positive values"):
        RMSE(scale)


def test_a_scale_is_that_of_one_image() -> None:
    inputs = torch.zeros(5, 3, 4, 2)
    for shape in ((), (1,), (2,), (4, 1), (3, 1, 1), (3, 4, 2), (1, 3, 1, 1), (1, 3, 4, 2)):
        L2(torch.ones(shape)).check(inputs)
    L2().check(inputs)
    for shape in ((3,), (3, 4), (5, 3, 4, 2), (5, 1, 1, 1), (1, 1, 3, 4, 2)):
        with pytest.raises(InvalidInputError, match=r"scale: expected it to broadcast to one image \(3, 4, 2\), got "):
            L2(torch.ones(shape)).check(inputs)


def test_the_unit_tells_scales_apart() -> None:
    scales = [torch.tensor([1.0, 2.0]), torch.tensor([1.0, 3.0]), torch.tensor([[1.0], [2.0]])]
    units = [RMSE(scale).unit for scale in scales]
    assert len(set(units)) == 3
    assert RMSE(scales[0].double()).unit == units[0]  # the values count, not the precision that holds them
    assert L2(torch.tensor([[4.0]])).unit == L2(4).unit == "l2 over scale 4"
    assert Linf().unit == "linf"


def test_norms_by_name() -> None:
    assert isinstance(as_norm("rmse"), RMSE)
    assert as_norm(norm := Linf()) is norm
    with pytest.raises(InvalidInputError, match=r"\['l2', 'linf', 'rmse'\]"):
        as_norm("l3")
    with pytest.raises(InvalidInputError, match="its own scale"):
        as_norm(L2(), 2.0)
    with pytest.raises(InvalidInputError, match="positive"):
        L2(torch.tensor([1.0, 0.0]))
    with pytest.raises(InvalidInputError, match="norm: expected one of"):
        as_norm(2)  # type: ignore[arg-type]
    assert as_norm("linf", 3.0).size(torch.tensor([[6.0]])).item() == 2.0


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


def test_the_steepest_direction_of_entries_of_very_different_sizes() -> None:
    direction = L2().steepest(torch.tensor([[1.0, 1e-30], [0.0, 3e-30]]))
    torch.testing.assert_close(direction, torch.tensor([[1.0, 0.0], [0.0, 1.0]]))


def test_a_scale_of_two_images_is_refused_where_there_are_two() -> None:
    with pytest.raises(InvalidInputError, match="scale"):
        L2(scale=torch.ones(2, 3)).check(torch.rand(2, 3))
