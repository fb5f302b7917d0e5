"""Constructed curves whose comparison is known."""

from __future__ import annotations

import pytest
import torch
from cifar10_training.comparison import Point, common_range, compare_at_equal_accuracy

from captum_lipschitz.errors import InvalidInputError


def _point(accuracy: float, distance: float, *, images: int = 200, attacked: int = 100) -> Point:
    """A network that decides so many images rightly, spread evenly, all of whose attacked images have one distance."""
    correct = torch.zeros(images, dtype=torch.float64)
    correct[torch.arange(round(accuracy * images)) * 7 % images] = 1  # 7 has no divisor in common with 200
    return Point(correct, torch.full((attacked,), distance, dtype=torch.float64), 0.0)


def test_areas_are_read_between_the_networks_on_either_side() -> None:
    # ln area falls linearly with the accuracy: 0.04, 0.02, 0.01 at 0.4, 0.5, 0.6.
    first = [[_point(0.4, 0.04), _point(0.6, 0.01), _point(0.5, 0.02)]]
    second = [[_point(0.5, 0.01), _point(0.6, 0.01)]]
    found = compare_at_equal_accuracy(first, second, accuracy=0.55)
    assert found is not None
    assert found.areas == pytest.approx((0.02**0.5 * 0.01**0.5, 0.01))
    assert found.ratio == pytest.approx(2**0.5)
    assert found.by_seed == pytest.approx((2**0.5,))


def test_the_interval_covers_seeds() -> None:
    first = [[_point(0.5, 0.01 * factor), _point(0.6, 0.01 * factor)] for factor in (2, 4, 8)]
    second = [[_point(0.5, 0.01), _point(0.6, 0.01)] for _ in range(3)]
    found = compare_at_equal_accuracy(first, second)
    assert found is not None
    assert found.accuracies == pytest.approx((0.55,) * 3)
    assert found.by_seed == pytest.approx((2, 4, 8))
    assert found.ratio == pytest.approx(4)
    # Means of three logarithms drawn from ln 2, ln 4, ln 8: all of one seed has a chance of 1 in 27, more than 2.5%.
    assert found.interval == pytest.approx((2, 8))


def test_the_interval_covers_images_and_is_paired() -> None:
    spread = torch.linspace(0.001, 0.1, 100, dtype=torch.float64)
    correct = _point(0.5, 1.0).correct
    first, second = ([[Point(correct, factor * spread, 0.0)]] for factor in (3, 1))
    paired = compare_at_equal_accuracy(first, second)
    assert paired is not None
    assert paired.interval == pytest.approx((3, 3))
    shuffled = [[Point(correct, 3 * spread[torch.arange(100) * 37 % 100], 0.0)]]
    unpaired = compare_at_equal_accuracy(shuffled, second)
    assert unpaired is not None
    assert unpaired.ratio == pytest.approx(3)
    assert unpaired.interval[0] < 2.9
    assert unpaired.interval[1] > 3.1


def test_curves_without_an_accuracy_in_common_are_not_compared() -> None:
    first, second = [[_point(0.3, 0.1), _point(0.4, 0.1)]], [[_point(0.5, 0.1), _point(0.6, 0.1)]]
    low, high = common_range([*first, *second])
    assert (low, high) == pytest.approx((0.5, 0.4))
    assert compare_at_equal_accuracy(first, second) is None
    with pytest.raises(InvalidInputError, match="expected one that all curves reach"):
        compare_at_equal_accuracy(first, second, accuracy=0.45)


def test_seeds_without_an_accuracy_in_common_are_compared_each_at_its_own() -> None:
    first = [[_point(0.4, 0.02), _point(0.45, 0.02)], [_point(0.5, 0.04), _point(0.55, 0.04)]]
    second = [[_point(0.3, 0.01), _point(0.6, 0.01)]] * 2
    found = compare_at_equal_accuracy(first, second)
    assert found is not None
    assert found.accuracies == pytest.approx((0.425, 0.525))
    assert found.by_seed == pytest.approx((2, 4))
    assert found.where == "0.425 to 0.525"


def test_an_area_of_zero_has_no_ratio() -> None:
    assert compare_at_equal_accuracy([[_point(0.5, 0.0)]], [[_point(0.5, 0.1)]]) is None


def test_other_seeds_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="as many seeds"):
        compare_at_equal_accuracy([[_point(0.5, 0.1)]], [[_point(0.5, 0.1)]] * 2)
