"""Important regions, and the energy outside them beside what uninformed regions leave."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import EnergyOutside, energy_outside, important_region


def _energy_case(seed: int, height: int, width: int, share: float) -> tuple[Tensor, Tensor]:
    source = torch.Generator().manual_seed(seed)
    perturbations = torch.randn(2, 3, height, width, generator=source, dtype=torch.float64)
    region = torch.rand(2, height, width, generator=source) < share
    region[:, 0, 0] = True
    return perturbations, region


def _outside(perturbation: Tensor, region: Tensor) -> float:
    energy = perturbation.square().sum(0)
    return float(energy[~region].sum() / energy.sum())


@given(seeds, st.integers(2, 6), st.integers(2, 6), st.floats(0.05, 0.9))
def test_every_placement_by_hand(seed: int, height: int, width: int, share: float) -> None:
    perturbations, region = _energy_case(seed, height, width, share)
    found = energy_outside(perturbations, region)
    for i in range(2):
        own = _outside(perturbations[i], region[i])
        places = [(a, b) for a in range(height) for b in range(width)]
        shifted = torch.tensor(
            [_outside(perturbations[i], region[i].roll(place, (0, 1))) for place in places], dtype=torch.float64
        )
        single = torch.arange(height * width).reshape(height, width)
        held = [1 - _outside(perturbations[i], single == k) for k in range(height * width)]
        assert float(found.outside[i]) == pytest.approx(own, abs=1e-12)
        # Both references have one mean: of the region's own shape anywhere, and of as many positions anywhere.
        assert float(found.at_random[i]) == pytest.approx(float(shifted.mean()), abs=1e-12)
        mean_held = int(region[i].sum()) * sum(held) / len(held)
        assert float(found.at_random[i]) == pytest.approx(1 - mean_held, abs=1e-12)
        assert float(found.placements_as_good[i]) == pytest.approx(float((shifted <= own + 1e-9).double().mean()))


@given(seeds, st.integers(2, 6), st.integers(2, 6), st.floats(0.05, 0.9), st.floats(0.001, 1000))
def test_ranges_and_what_does_not_matter(seed: int, height: int, width: int, share: float, factor: float) -> None:
    perturbations, region = _energy_case(seed, height, width, share)
    found, scaled = energy_outside(perturbations, region), energy_outside(-factor * perturbations, region)
    rest = energy_outside(perturbations, ~region)
    for a, b in zip(found, scaled, strict=True):
        assert torch.allclose(a, b, atol=1e-9, equal_nan=True)
        assert bool(((a >= -1e-12) & (a <= 1 + 1e-12)).all())
    known = ~rest.outside.isnan()
    assert torch.allclose((found.outside + rest.outside)[known], torch.ones(int(known.sum())).double())
    assert bool((found.placements_as_good >= 1 / (height * width) - 1e-12).all())
    alone = energy_outside(perturbations[1:], region[1:])
    assert all(torch.allclose(a[1:], b, atol=1e-12) for a, b in zip(found, alone, strict=True))


def test_a_region_that_knows_and_one_that_points_elsewhere() -> None:
    perturbation = torch.zeros(2, 1, 6, 6)
    perturbation[:, 0, 1:3, 1:3] = 1
    region = torch.zeros(2, 6, 6, dtype=torch.bool)
    region[0, 1:3, 1:3] = True
    region[1, 3:5, 3:5] = True
    found = energy_outside(perturbation, region)
    assert isinstance(found, EnergyOutside)
    assert found.outside.tolist() == [0.0, 1.0]
    assert found.at_random.tolist() == pytest.approx([32 / 36] * 2)
    assert found.placements_as_good.tolist() == pytest.approx([1 / 36, 1.0])
    assert found.at_centre.tolist() == pytest.approx([3 / 4] * 2)  # the four at the centre hold one of the four


def test_energy_spread_evenly_is_outside_as_the_positions_are() -> None:
    region = torch.zeros(1, 5, 4, dtype=torch.bool)
    region[0, :2, :3] = True
    found = energy_outside(torch.ones(1, 2, 5, 4), region)
    assert [float(value) for value in found] == pytest.approx([14 / 20, 14 / 20, 14 / 20, 1.0])


def test_rows_of_features_have_no_places_to_be_shifted_to() -> None:
    found = energy_outside(torch.tensor([[3.0, 4.0, 0.0]]), torch.tensor([[False, True, False]]))
    assert float(found.outside) == pytest.approx(9 / 25)
    assert float(found.at_random) == pytest.approx(2 / 3)
    assert math.isnan(found.at_centre)
    assert math.isnan(found.placements_as_good)


def test_volumes_are_shifted_along_all_axes() -> None:
    perturbation = torch.zeros(1, 1, 2, 3, 4)
    perturbation[0, 0, 1, 2, 3] = 5.0
    region = perturbation[:, 0] > 0
    found = energy_outside(perturbation, region)
    assert float(found.placements_as_good) == pytest.approx(1 / 24)


def test_no_perturbation_or_no_region_has_no_figure() -> None:
    region = torch.zeros(2, 4, 4, dtype=torch.bool)
    region[0, 0, 0] = True
    perturbation = torch.ones(2, 1, 4, 4)
    perturbation[0] = 0
    for values in energy_outside(perturbation, region):
        assert bool(values.isnan().all())


def test_the_largest_magnitudes_are_important_and_ties_come_in_together() -> None:
    maps = torch.tensor([[-5.0, 1.0, 2.0, 2.0, 0.0], [0.0, 0.0, 3.0, 0.0, 0.0]])
    assert important_region(maps, area=0.2).tolist() == [[True, *[False] * 4], [False, False, True, False, False]]
    two = important_region(maps, area=0.4)
    assert two[0].tolist() == [True, False, True, True, False]  # two tie for the second place
    assert two[1].tolist() == [False, False, True, False, False]  # nothing else has any magnitude


@pytest.mark.parametrize("value", [0.0, 1.0, math.nan, math.inf])
def test_a_map_without_an_order_singles_out_nothing(value: float) -> None:
    assert not bool(important_region(torch.full((1, 4, 4), value)).any())


@given(seeds, st.floats(0.01, 0.99))
def test_the_share_of_positions_and_their_order(seed: int, area: float) -> None:
    source = torch.Generator().manual_seed(seed)
    maps = torch.randn(3, 5, 7, generator=source)
    region = important_region(maps, area=area)
    count = max(1, round(area * 35))
    assert region.flatten(1).sum(1).tolist() == [count if count < 35 else 0] * 3
    if count < 35:
        inside, outside = maps.abs().where(region, math.inf), maps.abs().where(~region, 0.0)
        assert bool((inside.flatten(1).amin(1) > outside.flatten(1).amax(1)).all())
    order = torch.randperm(35, generator=source)
    shuffled = important_region(maps.flatten(1)[:, order], area=area)
    assert torch.equal(shuffled, region.flatten(1)[:, order])


def test_bad_input_is_refused() -> None:
    maps, perturbations = torch.rand(2, 4, 4), torch.rand(2, 3, 4, 4)
    with pytest.raises(InvalidInputError, match="area: expected a share between 0 and 1, got 0"):
        important_region(maps, area=0)
    with pytest.raises(InvalidTypeError, match="maps: expected a floating tensor of maps, got NoneType"):
        important_region(None)  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match=r"region: expected a bool tensor, got torch.float32"):
        energy_outside(perturbations, maps)
    with pytest.raises(
        InvalidInputError, match=r"region: expected one value for each position, \(2, 4, 4\), got \(2, 16\)"
    ):
        energy_outside(perturbations, maps.flatten(1) > 0.5)
    with pytest.raises(InvalidInputError, match="perturbations: expected finite values"):
        energy_outside(perturbations / 0, maps > 0.5)
