"""Moving along an explanation: a linear model follows exactly, within bounds and without."""

from __future__ import annotations

import math

import pytest
import torch
from fidelity_cases import LeftHalf, gradients, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds

from captum_lipschitz import RMSE, Bounds
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.fidelity import behaviour


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(1e-3, 10))
def test_a_linear_model_does_what_its_gradient_promises_and_nothing_promises_more(seed: int, rho: float) -> None:
    model, (images, targets) = LeftHalf(), pictures(3, seed=seed)
    steepest = 6 * float(model.weight.detach().norm())  # an RMSE of 1 over 36 positions is a length of 6
    along = behaviour(model, images, targets, gradients(model)(images, targets), rho=rho)
    for values in (along.toward, along.away):
        assert values.tolist() == pytest.approx([steepest] * 3)
    for sizes in (along.toward_size, along.away_size):
        assert sizes.tolist() == pytest.approx([rho] * 3)
    other = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    astray = behaviour(model, images, targets, other, rho=rho)
    cosine = (other * model.weight.detach()).flatten(1).sum(1) / other.flatten(1).norm(dim=1) / model.weight.norm()
    assert astray.toward.tolist() == pytest.approx((steepest * cosine).tolist())


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(1e-3, 1e3))
def test_scaling_permuting_splitting_and_turning_round(seed: int, factor: float) -> None:
    model, (images, targets) = build_convolutional(seed), build_batch(seed, 3)
    other = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole = behaviour(model, images, targets, other, bounds=(0, 1))
    scaled = behaviour(model, images, targets, factor * other, bounds=(0, 1))
    turned = torch.tensor([2, 0, 1])
    permuted = behaviour(model, images[turned], targets[turned], other[turned], bounds=(0, 1))
    alone = behaviour(model, images[1:2], targets[1:2], other[1:2], bounds=(0, 1))
    against = behaviour(model, images, targets, -other, bounds=(0, 1))
    for name in ("toward", "away", "toward_size", "away_size"):
        value = getattr(whole, name)
        assert torch.allclose(getattr(scaled, name), value)
        assert torch.allclose(getattr(permuted, name), value[turned])
        assert torch.allclose(getattr(alone, name), value[1:2])
    assert torch.allclose(against.toward, -whole.away)
    assert torch.allclose(against.away_size, whole.toward_size)


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(0.01, 0.9))
def test_moves_stay_within_bounds_and_have_the_size_asked_for_where_there_is_room(seed: int, rho: float) -> None:
    images, targets = pictures(3, seed=seed)
    seen: list[torch.Tensor] = []

    def model(inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs)
        return inputs.flatten(1)[:, :2]

    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = behaviour(model, images, targets, direction, rho=rho, bounds=(0.0, 1.0))
    assert all(bool(((x >= 0) & (x <= 1)).all()) for x in seen)
    room = RMSE().size((direction > 0).double() - images)
    assert found.toward_size.tolist() == pytest.approx(room.clamp(max=rho).tolist(), rel=1e-6)
    assert torch.allclose(RMSE().size(seen[1] - images), found.toward_size)


def test_an_image_in_a_corner_of_the_box_cannot_move_on() -> None:
    model, images = LeftHalf(), torch.ones(1, 1, 6, 6, dtype=torch.float64)
    found = behaviour(model, images, torch.tensor([0]), torch.ones_like(images), bounds=Bounds(0.0, 1.0))
    assert math.isnan(float(found.toward))
    assert float(found.toward_size) == 0.0
    assert float(found.away) == pytest.approx(float(model.weight.detach().sum()))


def test_coarse_maps_and_scales() -> None:
    model, (images, targets) = LeftHalf(channels=3), pictures(2, channels=3)
    coarse = torch.ones(2, 1, 2, 2, dtype=torch.float64)  # the same everywhere: all values are raised by rho
    found = behaviour(model, images, targets, coarse, rho=0.01)
    assert found.toward.tolist() == pytest.approx([float(model.weight.detach().sum())] * 2)
    scaled = behaviour(model, images, targets, coarse, rho=0.01, scale=10.0)  # a unit of size is ten of theirs
    assert scaled.toward.tolist() == pytest.approx([10 * float(model.weight.detach().sum())] * 2)


def test_what_says_nothing_has_no_value_and_does_not_disturb_the_others() -> None:
    model, (images, targets) = LeftHalf(), pictures(3)
    directions = gradients(model)(images, targets).clone()
    directions[0] = 0
    directions[2, 0, 0, 0] = torch.nan
    found = behaviour(model, images, targets, directions)
    assert found.toward.isnan().tolist() == found.away_size.isnan().tolist() == [True, False, True]


def test_bad_input_is_refused() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    with pytest.raises(InvalidInputError, match="rho"):
        behaviour(model, images, targets, images, rho=0.0)
    with pytest.raises(InvalidInputError, match="images: expected values within the bounds"):
        behaviour(model, images, targets, images, bounds=(0.4, 0.6))
    with pytest.raises(InvalidTypeError, match="explain"):
        behaviour(model, images, targets, targets)
    with pytest.raises(InvalidInputError, match=r"targets: expected classes in 0\.\.1"):
        behaviour(model, images, targets + 2, images)
