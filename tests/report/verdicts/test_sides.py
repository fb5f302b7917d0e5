"""Sides, support and levels: what an interval may be made to say."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_lipschitz.metrics.estimates import Estimate, Side, estimate, side_of
from captum_lipschitz.report.verdicts.sides import correction, level_of, majority, support_of


@given(st.lists(st.floats(-1, 1, width=32), min_size=8, max_size=24), st.floats(0, 0.5))
def test_support_and_contradiction_swap_with_the_sign(values: list[float], smallest: float) -> None:
    known = torch.tensor(values, dtype=torch.float64)
    one, other = (support_of(side_of(estimate(part), smallest), "above") for part in (known, -known))
    assert {one, other} in ({"supported", "contradicted"}, {"undecided"})


@pytest.mark.parametrize(
    ("low", "high", "side"),
    [
        (0.011, 0.02, "above"), (-0.02, -0.011, "below"), (-0.01, 0.01, "same"), (1e-5, 2e-5, "same"),
        (0.005, 0.02, "undecided"), (-0.02, 0.02, "undecided"), (math.nan, math.nan, "too few"),
    ],
)  # fmt: skip
def test_differences_that_do_not_matter_are_no_verdict(low: float, high: float, side: Side) -> None:
    assert side_of(Estimate(0.0, (low, high), 16, 0), 0.01) == side


def test_a_majority_points_one_way_only() -> None:
    assert majority([]) == "undecided"
    assert majority(["contradicted", "undecided"]) == "contradicted"
    assert majority(["supported", "undecided", "undecided"]) == "undecided"
    assert majority(["supported", "supported", "contradicted"]) == "undecided"


def test_several_comparisons_err_less_often_with_wider_intervals() -> None:
    source = torch.Generator().manual_seed(0)
    false = {9: 0, 1: 0}
    for _ in range(100):
        for comparisons in false:
            level = level_of(comparisons)
            found = [side_of(estimate(torch.randn(40, generator=source), level=level), 0.0) for _ in range(9)]
            false[comparisons] += bool({"above", "below"} & set(found))
    assert 2 * false[9] < false[1]
    assert false[1] > 30  # nine intervals of 95% each err in 1 - 0.95 ** 9 = 37% of samples at least


def test_the_correction_is_told() -> None:
    assert correction(1) == ""
    assert "99.44%, as these are 9 comparisons at once (Bonferroni)" in correction(9)
