"""The exact integral and its bootstrap."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import numerical_area
from strategies import distances, seeds
from torch import Tensor

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.metrics.area import (
    area,
    bootstrap_areas,
    bootstrap_generator,
    curve,
    finite_or_none,
    percentile_interval,
    resample_counts,
    weighted_areas,
)

chances = st.sampled_from([0.0, 0.1, 0.25, 1 / 3, 0.5])


@given(distances, chances)
def test_the_area_is_the_integral_of_the_curve(found: Tensor, chance: float) -> None:
    exact = area(found, chance, truncated=True)
    assert exact == pytest.approx(numerical_area(found, chance), rel=1e-3, abs=1e-3)
    endless = float(torch.isinf(found).double().mean()) > chance + 1e-9
    assert area(found, chance) == (math.inf if endless else exact)


@given(distances)
def test_the_curve_never_rises_and_ends_with_what_was_not_found(found: Tensor) -> None:
    rho = torch.cat([torch.linspace(0, 11, 300, dtype=torch.float64), found[torch.isfinite(found)]]).sort().values
    accuracy = curve(found, rho)
    assert (accuracy.diff() <= 0).all()
    assert accuracy[-1].item() == pytest.approx(float(torch.isinf(found).double().mean()))
    assert curve(found, torch.tensor(0.0)).item() == pytest.approx(float((found > 0).double().mean()))


@given(distances, chances, st.floats(0.1, 10))
def test_the_area_scales_with_the_distances_and_falls_with_chance(found: Tensor, chance: float, factor: float) -> None:
    whole = area(found, chance, truncated=True)
    assert area(factor * found, chance, truncated=True) == pytest.approx(factor * whole, abs=1e-9)
    assert area(found, chance + 0.1, truncated=True) <= whole + 1e-12


@given(distances, chances, seeds)
def test_the_bootstrap_is_resampling(found: Tensor, chance: float, seed: int) -> None:
    areas = bootstrap_areas(found, chance, generator=torch.Generator().manual_seed(seed), resamples=7)
    choices = torch.randint(len(found), (7, len(found)), generator=torch.Generator().manual_seed(seed))
    slow = [area(found[rows], chance) for rows in choices]
    assert areas.tolist() == pytest.approx(slow, abs=1e-9)


def test_the_interval_covers_at_its_rate() -> None:
    # Distances uniform on [0, 1], chance 0: the true area is the mean, 0.5.
    generator = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(200):
        found = torch.rand(100, generator=generator, dtype=torch.float64)
        low, high = percentile_interval(bootstrap_areas(found, 0.0, generator=generator, resamples=400))
        covered += low <= 0.5 <= high
    assert 0.90 <= covered / 200 <= 0.99


def test_intervals_of_infinite_and_unknown_areas() -> None:
    values = torch.tensor([1.0] * 90 + [math.inf] * 10)
    assert percentile_interval(values) == (1.0, math.inf)
    assert percentile_interval(torch.tensor([1.0, math.nan])) == (-math.inf, math.inf)
    assert percentile_interval(torch.tensor([1.0] * 999 + [math.nan])) == (1.0, 1.0)


def test_the_curve_by_hand() -> None:
    found = torch.tensor([3.0, 0.0, math.inf, 1.0])
    rho = torch.tensor([[0.0, 0.5, 1.0], [2.0, 3.0, 100.0]])
    assert curve(found, rho).tolist() == [[0.75, 0.75, 0.5], [0.5, 0.25, 0.25]]
    assert curve(found, rho).dtype == torch.float64


def test_areas_by_hand() -> None:
    found = torch.tensor([2.0, 0.0, 1.0, math.inf])
    # The curve is 3/4 up to 1, 1/2 up to 2, 1/4 for ever.
    assert area(found, 0.25) == pytest.approx(0.5 + 0.25)
    assert area(found, 0.0, truncated=True) == pytest.approx(0.75 + 0.5)
    assert area(found, 0.0) == math.inf
    assert area(found, 0.5) == pytest.approx(0.25)
    assert area(torch.zeros(3), 0.0) == 0.0
    assert area(torch.full((2,), math.inf), 1.0) == 0.0
    # A third of three images is exactly what guessing has: rounding must not make that an endless area.
    assert area(torch.tensor([1.0, 1.0, math.inf]), 1 / 3) == pytest.approx(2 / 3)
    assert area(torch.tensor([1.0] * 9 + [math.inf]), 0.1) == pytest.approx(0.9)
    assert area(torch.tensor([1.0] * 999_999 + [math.inf]), 0.0) == math.inf  # one in a million is no rounding


def test_weighted_areas_are_those_of_repeated_images() -> None:
    found = torch.tensor([2.0, 0.5, math.inf])
    counts = torch.tensor([[1, 1, 0], [0, 3, 0], [2, 0, 1], [0, 0, 0]], dtype=torch.float64)
    rows = weighted_areas(found, counts, 0.4)
    repeated = [[2.0, 0.5], [0.5] * 3, [2.0, 2.0, math.inf]]
    assert rows[:3].tolist() == pytest.approx([area(torch.tensor(images), 0.4) for images in repeated])
    assert rows.dtype == torch.float64
    assert rows[3].isnan()


def test_every_resample_has_as_many_images_as_there_are() -> None:
    chunks = list(resample_counts(400_000, generator=torch.Generator().manual_seed(0), resamples=3))
    assert [chunk.shape for chunk in chunks] == [(1, 400_000)] * 3  # as memory allows
    assert all(chunk.sum() == 400_000 for chunk in chunks)
    (small,) = resample_counts(7, generator=torch.Generator().manual_seed(0), resamples=50)
    assert small.shape == (50, 7)
    assert small.sum(1).tolist() == [7.0] * 50
    assert small.sum(0).min() > 0
    parts = list(resample_counts(200, generator=torch.Generator().manual_seed(0)))
    assert sum(len(part) for part in parts) == 2000
    assert max(part.numel() for part in parts) <= 500_000


def test_the_usual_bootstrap_draws_two_thousand_times() -> None:
    areas = bootstrap_areas(torch.tensor([1.0, 2.0]), 0.0, generator=torch.Generator().manual_seed(0))
    assert areas.shape == (2000,)
    assert set(areas.tolist()) == {1.0, 1.5, 2.0}


def test_the_interval_is_central() -> None:
    values = torch.arange(1001.0).flip(0)
    assert percentile_interval(values) == (25.0, 975.0)
    assert percentile_interval(values, 0.5) == (250.0, 750.0)
    assert percentile_interval(torch.tensor([1.0, 2.0, 3.0, 4.0]), 0.5) == (1.0, 4.0)  # outward where between two
    assert percentile_interval(torch.tensor([-math.inf, 0.0, math.inf]), 0.99) == (-math.inf, math.inf)
    assert percentile_interval(torch.tensor([-math.inf] * 3)) == (-math.inf, -math.inf)


def test_without_a_generator_results_repeat() -> None:
    first, second = (torch.rand(3, generator=bootstrap_generator(None)) for _ in range(2))
    assert torch.equal(first, second)
    own = torch.Generator().manual_seed(4)
    assert bootstrap_generator(own) is own
    with pytest.raises(InvalidTypeError, match="generator: expected a torch"):
        bootstrap_generator(3)


def test_what_json_has_not_becomes_none() -> None:
    nested = {"a": [1.0, math.inf, (math.nan, "text")], "b": {"c": -math.inf}, "d": 3, "e": None}
    assert finite_or_none(nested) == {"a": [1.0, None, [None, "text"]], "b": {"c": None}, "d": 3, "e": None}
