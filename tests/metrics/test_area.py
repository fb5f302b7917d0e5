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

from captum_lipschitz.metrics.area import area, bootstrap_areas, curve, percentile_interval

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
