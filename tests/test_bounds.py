"""The box that perturbed inputs stay in: limits that are numbers, and limits of each feature."""

from __future__ import annotations

import pytest
import torch

from captum_lipschitz import Bounds
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

PER_FEATURE = torch.tensor([1.0, 9.0])


def test_a_pair_is_read_and_nothing_else() -> None:
    assert Bounds.of(None) is None
    assert Bounds.of((0, 1)) == Bounds.of([0.0, 1.0]) == Bounds(0.0, 1.0)  # type: ignore[arg-type]
    for wrong in (3, (0,), (0, 1, 2), "01"):
        with pytest.raises(InvalidTypeError, match="bounds: expected a pair"):
            Bounds.of(wrong)  # type: ignore[arg-type]


def test_the_lower_limit_is_below_the_upper_one() -> None:
    for lower, upper in ((1.0, 0.0), (0.5, 0.5), (0.0, float("nan"))):
        with pytest.raises(InvalidInputError, match="bounds: expected lower < upper"):
            Bounds.of((lower, upper))
    fixed = Bounds.of((torch.tensor([0.0, 9.0]), PER_FEATURE))  # the second feature cannot change
    assert fixed is not None
    assert fixed.clamp(torch.tensor([[5.0, 5.0]])).tolist() == [[1.0, 9.0]]
    for lower in (torch.tensor([0.0, 9.5]), 1.5):
        with pytest.raises(InvalidInputError, match="lower <= upper for every feature"):
            Bounds.of((lower, PER_FEATURE))


def test_limits_carry_no_gradient() -> None:
    limits = Bounds.of((0.0, PER_FEATURE.clone().requires_grad_()))
    assert limits is not None
    assert not limits.clamp(torch.zeros(1, 2)).requires_grad


def test_equal_limits_are_equal_whatever_they_are_made_of() -> None:
    one, other = Bounds(0.0, PER_FEATURE), Bounds(0.0, PER_FEATURE.clone())
    assert one == other
    assert hash(one) == hash(other)
    assert one == (0, PER_FEATURE)
    assert Bounds(0.0, 1.0) == (0, 1)
    assert hash(Bounds(0.0, 1.0)) == hash(Bounds(0, 1))


@pytest.mark.parametrize("other", [(0.0, 2.0), (0.5, 1.0), (0.0,), (0.0, 1.0, 2.0), [0.0, 1.0], None])
def test_other_limits_differ(other: object) -> None:
    assert Bounds(0.0, 1.0) != other
    assert not Bounds(0.0, 1.0) == other  # noqa: SIM201 - both operators are the class's own
    assert Bounds(0.0, PER_FEATURE) != (0.0, PER_FEATURE + 1)


def test_hashes_tell_boxes_apart() -> None:
    assert len({Bounds(0.0, 1.0), Bounds(0.0, 2.0), Bounds(-1.0, 1.0), Bounds(0.0, PER_FEATURE)}) == 4


def test_clamping_goes_to_the_nearest_limit_of_each_feature() -> None:
    inputs = torch.tensor([[-5.0, 5.0], [0.5, 50.0]])
    assert Bounds(0.0, 1.0).clamp(inputs).tolist() == [[0.0, 1.0], [0.5, 1.0]]
    assert Bounds(0.0, PER_FEATURE).clamp(inputs).tolist() == [[0.0, 5.0], [0.5, 9.0]]
    assert Bounds(-PER_FEATURE, 6.0).clamp(inputs).tolist() == [[-1.0, 5.0], [0.5, 6.0]]
    assert Bounds(-PER_FEATURE, PER_FEATURE).clamp(inputs).tolist() == [[-1.0, 5.0], [0.5, 9.0]]


def test_limits_come_in_the_inputs_shape_and_dtype() -> None:
    lower, upper = Bounds(0.0, PER_FEATURE).like(torch.zeros(3, 2, dtype=torch.float64))
    assert lower.dtype == upper.dtype == torch.float64
    assert lower.tolist() == [[0.0, 0.0]] * 3
    assert upper.tolist() == [[1.0, 9.0]] * 3


def test_what_lies_outside_is_counted_and_named() -> None:
    inputs = torch.tensor([[-0.5, 0.5], [1.0, 2.0], [0.0, 1.5]])
    with pytest.raises(InvalidInputError, match=r"images: .* \[0.0, 1.0\], got 3 outside, from -0.5 to 2.0"):
        Bounds(0.0, 1.0).check(inputs, "images")
    with pytest.raises(InvalidInputError, match=r"inputs: .* \[0.0, 9.0\], got 1 outside, from 1.5 to 1.5"):
        Bounds(0.0, PER_FEATURE).check(torch.tensor([[1.5, 2.0]]))
    Bounds(0.0, 1.0).check(torch.tensor([[0.0, 1.0]]))  # the limits themselves are inside
    with pytest.raises(InvalidInputError, match=r"limits that broadcast to the inputs, \(1, 3\)"):
        Bounds(0.0, PER_FEATURE).check(torch.zeros(1, 3))


def test_the_limits_are_those_of_one_image() -> None:
    inputs = torch.zeros(3, 2)
    for shared in (PER_FEATURE, PER_FEATURE[None], torch.tensor(9.0), 9.0):
        Bounds(0.0, shared).check_shared(inputs)
    for own in (PER_FEATURE.expand(3, 2), PER_FEATURE.expand(2, 2)):
        with pytest.raises(InvalidInputError, match=r"broadcast to one image, \(2,\), got \(., 2\)"):
            Bounds(0.0, own).check_shared(inputs)
        with pytest.raises(InvalidInputError, match="broadcast to one image"):
            Bounds(-own, 9.0).check_shared(inputs)
