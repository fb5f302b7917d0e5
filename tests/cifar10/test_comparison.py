"""Constructed curves whose comparison is known."""

from __future__ import annotations

import math

import pytest
import torch
from cifar10_training.comparison import Point, common_range, compare_at_equal_accuracy
from scipy import stats

from captum_lipschitz.errors import InvalidInputError


def _point(accuracy: float, distance: float, *, images: int = 200, attacked: int = 100) -> Point:
    """A network that decides so many images rightly, spread evenly, all of whose attacked images have one distance."""
    correct = torch.zeros(images, dtype=torch.float64)
    correct[torch.arange(round(accuracy * images)) * 7 % images] = 1  # 7 has no divisor in common with 200
    return Point(correct, torch.full((attacked,), distance, dtype=torch.float64), 0.0)


def _certain(accuracy: float, distance: float) -> Point:
    """The same without sampling noise: images in such proportions are all alike."""
    return Point(torch.full((200,), accuracy, dtype=torch.float64), torch.full((100,), distance).double(), 0.0)


def test_areas_are_read_between_the_networks_on_either_side() -> None:
    # ln area falls linearly with the accuracy: 0.04, 0.02, 0.01 at 0.4, 0.5, 0.6.
    first = [[_point(0.4, 0.04), _point(0.6, 0.01), _point(0.5, 0.02)]]
    second = [[_point(0.5, 0.01), _point(0.6, 0.01)]]
    found = compare_at_equal_accuracy(first, second, accuracy=0.55)
    assert found is not None
    assert found.areas == pytest.approx((0.02**0.5 * 0.01**0.5, 0.01))
    assert found.ratio == pytest.approx(2**0.5)
    assert found.by_seed == pytest.approx((2**0.5,))


def test_a_failed_run_changes_nothing() -> None:
    curve = [_certain(0.6, 0.02), _certain(0.7, 0.015), _certain(0.8, 0.01)]
    for failed in (_certain(0.69, 0.002), _certain(0.4, 0.001)):
        found = compare_at_equal_accuracy([[*curve, failed]], [curve], accuracy=0.65)
        assert found is not None
        assert found.ratio == pytest.approx(1)
        assert found.interval == pytest.approx((1, 1))


def test_a_more_accurate_network_counts_at_lower_accuracies_too() -> None:
    found = compare_at_equal_accuracy([[_certain(0.7, 0.03)]], [[_certain(0.3, 0.02), _certain(0.4, 0.01)]])
    assert found is not None
    assert found.accuracy == pytest.approx(0.4)
    assert found.ratio == pytest.approx(3)


def test_the_interval_of_seeds_is_students() -> None:
    first = [[_certain(0.5, 0.01 * factor), _certain(0.6, 0.01 * factor)] for factor in (2, 4, 8)]
    second = [[_certain(0.5, 0.01), _certain(0.6, 0.01)] for _ in range(3)]
    found = compare_at_equal_accuracy(first, second)
    assert found is not None
    assert found.accuracy == pytest.approx(0.55)
    assert found.by_seed == pytest.approx((2, 4, 8))
    assert found.ratio == pytest.approx(4)
    half = stats.t.ppf(0.975, 2) * math.log(2) / math.sqrt(3)
    assert found.interval == pytest.approx((4 * math.exp(-half), 4 * math.exp(half)))


def test_the_interval_of_images_is_that_of_their_means_and_is_paired() -> None:
    spread = torch.linspace(0.001, 0.1, 100, dtype=torch.float64)
    correct = _point(0.5, 1.0).correct
    first, second = ([[Point(correct, factor * spread, 0.0)]] for factor in (3, 1))
    paired = compare_at_equal_accuracy(first, second)
    assert paired is not None
    assert paired.interval == pytest.approx((3, 3))
    shuffled = compare_at_equal_accuracy([[Point(correct, 3 * spread[torch.arange(100) * 37 % 100], 0.0)]], second)
    assert shuffled is not None
    assert shuffled.ratio == pytest.approx(3)
    # Two independent means of 100 values each: the variances of their logarithms add up.
    half = 1.96 * math.sqrt(2) * float(spread.std() / spread.mean()) / math.sqrt(100)
    assert math.log(shuffled.interval[1] / 3) == pytest.approx(half, rel=0.15)


def test_an_accuracy_that_a_curve_does_not_reach_is_refused() -> None:
    first, second = [[_point(0.3, 0.1), _point(0.4, 0.1)]], [[_point(0.5, 0.1), _point(0.6, 0.1)]]
    assert common_range([*first, *second]) == pytest.approx((0.5, 0.4))
    with pytest.raises(InvalidInputError, match=r"expected one that all curves reach, at most 0\.4"):
        compare_at_equal_accuracy(first, second, accuracy=0.45)


@pytest.mark.parametrize("distance", [0.0, math.inf])
def test_an_area_of_zero_or_infinity_has_no_ratio(distance: float) -> None:
    assert compare_at_equal_accuracy([[_point(0.5, distance)]], [[_point(0.5, 0.1)]]) is None


@pytest.mark.parametrize(
    ("second", "message"),
    [([[_point(0.5, 0.1)]] * 2, "as many seeds"), ([[_point(0.5, 0.1, attacked=50)]], "the same images")],
)
def test_networks_that_cannot_be_compared_are_refused(second: list[list[Point]], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        compare_at_equal_accuracy([[_point(0.5, 0.1)]], second)
