"""When processes whose parameters drift apart are found out: ``ProcessWatch`` given what two of them would say."""

from __future__ import annotations

from contextlib import suppress

import pytest
import torch
from torch import Tensor

from captum_lipschitz.errors import UnsupportedTrainingError
from captum_lipschitz.training.processes import ProcessWatch

SAME, OTHER = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 1.5])


def _found_at(prints: list[Tensor]) -> int | None:
    """The step, from 0, at which the watch looks and finds them apart."""
    watch, step = ProcessWatch(), 0
    with suppress(UnsupportedTrainingError):
        for one in prints:
            watch._compare(one)
            step += 1
        return None
    return step


def test_processes_that_stay_together_are_left_alone() -> None:
    assert _found_at([SAME] * 40) is None


@pytest.mark.parametrize(("apart", "found"), [(0, 0), (1, 1), (4, 4), (5, 8), (7, 8), (8, 8), (9, 16), (17, 32)])
def test_what_differs_between_two_looks_is_remembered(apart: int, found: int) -> None:
    """They may be together again when the watch looks, as after a parameter that is broadcast now and then."""
    assert _found_at([SAME] * apart + [OTHER] + [SAME] * 40) == found


def test_parameters_that_are_not_finite_say_nothing() -> None:
    assert _found_at([torch.tensor([torch.nan, 1.0])] * 10) is None
