"""Means over images with their intervals."""

from __future__ import annotations

import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.estimates import FEWEST, Estimate, estimate, paired_difference

NUMBERS = st.lists(st.floats(-100, 100), min_size=FEWEST, max_size=40).map(lambda x: torch.tensor(x).double())


@given(NUMBERS)
def test_the_interval_holds_the_mean_and_lies_within_the_values(values: torch.Tensor) -> None:
    found = estimate(values)
    low, high = found.interval
    assert found.mean == pytest.approx(float(values.mean()))
    assert values.min() - 1e-9 <= low <= high <= values.max() + 1e-9
    assert low - 1e-9 <= found.mean <= high + 1e-9
    assert (found.images, found.left_out) == (len(values), 0)


@given(NUMBERS, st.floats(-5, 5))
def test_shifting_all_values_shifts_everything(values: torch.Tensor, shift: float) -> None:
    before, after = estimate(values), estimate(values + shift)
    assert after.mean == pytest.approx(before.mean + shift, abs=1e-9)
    assert after.interval == pytest.approx(tuple(end + shift for end in before.interval), abs=1e-9)


@given(NUMBERS)
def test_a_difference_is_antisymmetric_and_ignores_what_is_common(values: torch.Tensor) -> None:
    other = values.flip(0) + 0.5
    one, back = paired_difference(values, other), paired_difference(other, values)
    assert one.mean == pytest.approx(-back.mean)
    assert paired_difference(values + 1, values).interval == pytest.approx((1.0, 1.0))


def test_the_interval_covers_the_true_mean_about_as_often_as_it_says() -> None:
    source = torch.Generator().manual_seed(0)
    covered = 0
    for _ in range(300):
        low, high = estimate(torch.randn(30, generator=source)).interval
        covered += low <= 0 <= high
    assert 0.90 <= covered / 300 <= 0.985  # 95% in the limit; percentiles of 30 are a little narrow


def test_images_without_a_value_are_counted_and_left_out() -> None:
    values = torch.tensor([1.0, math.nan] * 10)
    assert estimate(values) == Estimate(1.0, (1.0, 1.0), 10, 10)
    assert paired_difference(values, torch.zeros(20)).images == 10


def test_few_images_have_no_interval_and_say_so() -> None:
    few = estimate(torch.ones(FEWEST - 1))
    assert few.mean == 1.0
    assert few.compared_with(0.0) == "too few"
    assert estimate(torch.ones(FEWEST)).compared_with(0.0) == "above"
    none = estimate(torch.full((9,), math.nan))
    assert math.isnan(none.mean)
    assert none.compared_with(0.0) == "too few"


def test_verdicts() -> None:
    found = Estimate(0.5, (0.4, 0.6), 20, 0)
    assert [found.compared_with(value) for value in (0.3, 0.4, 0.5, 0.7)] == [
        "above",
        "undecided",
        "undecided",
        "below",
    ]
    with pytest.raises(InvalidInputError, match="value: expected a number to compare with, got NaN"):
        found.compared_with(math.nan)


def test_plain_values_survive_json() -> None:
    plain = estimate(torch.ones(3)).to_dict()
    assert json.loads(json.dumps(plain)) == {"mean": 1.0, "interval": [None, None], "images": 3, "left_out": 0}
    assert str(Estimate(0.5, (0.4, 0.6), 20, 0)) == "0.5 [0.4, 0.6], 20 images"


def test_what_cannot_be_averaged_is_refused() -> None:
    with pytest.raises(
        InvalidInputError, match=r"values: expected one real number per image, shape \(N,\), got \(2, 2\)"
    ):
        estimate(torch.ones(2, 2))
    with pytest.raises(InvalidTypeError, match="values: expected a tensor, got list"):
        estimate([1.0])  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="b: expected a tensor, got float"):
        paired_difference(torch.ones(2), 1.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"b: expected the images of a, shape \(3,\), got \(1,\)"):
        paired_difference(torch.ones(3), torch.ones(1))


@given(NUMBERS)
def test_a_higher_level_widens_the_interval_and_leaves_the_mean(values: torch.Tensor) -> None:
    found, wide = estimate(values), estimate(values, level=0.995)
    assert (found.mean, found.images) == (wide.mean, wide.images)
    assert wide.interval[0] <= found.interval[0] <= found.interval[1] <= wide.interval[1]
    assert paired_difference(values, torch.zeros_like(values), level=0.995) == wide
    assert estimate(values, level=0.95) == found


@pytest.mark.parametrize("level", [0.0, 1.0, -1.0, math.nan])
def test_a_level_that_is_none_is_refused(level: float) -> None:
    with pytest.raises(InvalidInputError, match="level"):
        estimate(torch.ones(16), level=level)
