"""Insertion and deletion: a model that ignores half of the picture, and a slow re-implementation."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from fidelity_cases import LEFT, LeftHalf, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.fidelity import insertion_deletion
from captum_lipschitz.metrics.fidelity.curves import blurred


def drawn_maps(seed: int, count: int, *shape: int) -> Tensor:
    return torch.rand(count, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_map_that_is_right_or_wrong_about_the_half_that_the_model_sees() -> None:
    model, (images, targets) = LeftHalf(), pictures(3)
    nothing = torch.zeros(1, 6, 6, dtype=torch.float64)
    order = drawn_maps(1, 3, 6, 6)
    right = insertion_deletion(model, images, targets, order + LEFT, steps=4, baseline=nothing)
    wrong = insertion_deletion(model, images, targets, order + ~LEFT, steps=4, baseline=nothing)
    floor = 0.5 / model(images).softmax(1)[:, 0]  # without a picture both classes are as likely
    assert right.shares.tolist() == [0, 0.25, 0.5, 0.75, 1]
    assert right.insertion[:, 2:].tolist() == [[1.0] * 3] * 3
    assert torch.allclose(right.deletion[:, 2:], floor[:, None].expand(3, 3))
    assert torch.allclose(wrong.insertion[:, :3], floor[:, None].expand(3, 3))
    assert wrong.deletion[:, :3].tolist() == [[1.0] * 3] * 3
    assert bool((right.insertion_area > wrong.insertion_area).all())
    assert bool((right.deletion_area < wrong.deletion_area).all())


@torch.no_grad()
def obvious(model: torch.nn.Module, image: Tensor, order: Tensor, nothing: Tensor, steps: int) -> list[list[float]]:
    """Position by position, image by image; no two values of the map are equal."""
    ranked = order.flatten().argsort(descending=True)
    clean = float(model(image[None]).softmax(1)[0, 1])
    found = []
    for start, end in ((nothing, image), (image, nothing)):
        curve = []
        for step in range(steps + 1):
            mixed = start.clone()
            for position in ranked[: round(step / steps * len(ranked))]:
                row, column = divmod(int(position), order.shape[1])
                mixed[:, row, column] = end[:, row, column]
            curve.append(float(model(mixed[None]).softmax(1)[0, 1]) / clean)
        found.append(curve)
    return found


@settings(max_examples=8, deadline=None)
@given(seeds, st.integers(1, 7))
def test_the_curves_are_those_of_an_obvious_loop(seed: int, steps: int) -> None:
    model, (images, _) = build_convolutional(seed), build_batch(seed, 2)
    order, nothing = drawn_maps(seed, 2, 5, 5), torch.full((2, 5, 5), 0.3, dtype=torch.float64)
    found = insertion_deletion(model, images, torch.tensor([1, 1]), order, steps=steps, baseline=nothing)
    for row in range(2):
        insertion, deletion = obvious(model, images[row], order[row], nothing, steps)
        assert found.insertion[row].tolist() == pytest.approx(insertion)
        assert found.deletion[row].tolist() == pytest.approx(deletion)
        area = sum((a + b) / 2 for a, b in pairwise(insertion))
        if steps == 5:  # equal steps, for 25 positions
            assert float(found.insertion_area[row]) == pytest.approx(area / steps)


@settings(max_examples=10, deadline=None)
@given(seeds, st.floats(1e-3, 1e3))
def test_scaling_permuting_and_splitting_change_nothing(seed: int, factor: float) -> None:
    model, (images, targets) = build_convolutional(seed), build_batch(seed, 4)
    order = drawn_maps(seed, 4, 5, 5) - 0.5
    whole = insertion_deletion(model, images, targets, order, steps=5)
    scaled = insertion_deletion(model, images, targets, factor * order, steps=5)
    turned = torch.tensor([2, 0, 3, 1])
    permuted = insertion_deletion(model, images[turned], targets[turned], order[turned], steps=5)
    alone = insertion_deletion(model, images[2:3], targets[2:3], order[2:3], steps=5)
    for name in ("insertion_area", "deletion_area"):
        value = getattr(whole, name)
        assert torch.allclose(getattr(scaled, name), value)
        assert torch.allclose(getattr(permuted, name), value[turned])
        assert torch.allclose(getattr(alone, name), value[2:3])
        assert bool((value >= 0).all())
    assert whole.insertion[:, -1].tolist() == whole.deletion[:, 0].tolist() == [1.0] * 4
    assert torch.allclose(whole.insertion[:, 0], whole.deletion[:, -1])


def test_positions_of_equal_value_come_together() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    nothing = torch.zeros(1, 6, 6, dtype=torch.float64)
    found = insertion_deletion(model, images, targets, LEFT.double().expand(2, 6, 6), steps=4, baseline=nothing)
    half = model(images / 2).softmax(1)[:, 0] / model(images).softmax(1)[:, 0]  # half of what counts, evenly
    assert torch.allclose(found.insertion[:, 1], half)


def test_a_map_that_ranks_nothing_has_no_area() -> None:
    model, (images, targets) = LeftHalf(), pictures(3)
    maps = torch.ones(3, 6, 6, dtype=torch.float64)
    maps[1, 0, 0] = 2
    maps[2, 0, 0] = torch.nan
    found = insertion_deletion(model, images, targets, maps)
    assert found.insertion_area.isnan().tolist() == found.deletion_area.isnan().tolist() == [True, False, True]


def test_a_blurred_picture_has_no_new_values_and_less_contrast() -> None:
    images, _ = pictures(2, channels=3)
    soft = blurred(images)
    assert bool((soft.amax((2, 3)) < images.amax((2, 3))).all())
    assert bool((soft.amin((2, 3)) > images.amin((2, 3))).all())
    assert torch.allclose(blurred(images.flip(2, 3)), soft.flip(2, 3))
    assert blurred(images[:, :, 0]).shape == (2, 3, 6)


def test_bad_input_is_refused() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    with pytest.raises(InvalidInputError, match="maps: expected one value for each position"):
        insertion_deletion(model, images, targets, torch.rand(2, 1, 6, 6))
    with pytest.raises(InvalidInputError, match="steps: expected at least 1"):
        insertion_deletion(model, images, targets, torch.rand(2, 6, 6), steps=0)
    with pytest.raises(InvalidInputError, match="baseline: expected values that broadcast"):
        insertion_deletion(model, images, targets, torch.rand(2, 6, 6), baseline=torch.zeros(5))
    with pytest.raises(InvalidInputError, match="baseline: expected the data's mean"):
        insertion_deletion(torch.nn.Linear(4, 2), torch.rand(2, 4), targets, torch.rand(2, 4))
    with pytest.raises(InvalidInputError, match=r"targets: expected classes in 0\.\.1"):
        insertion_deletion(model, images, targets + 2, torch.rand(2, 6, 6))
    with pytest.raises(InvalidTypeError, match="maps"):
        insertion_deletion(model, images, targets, "maps")  # type: ignore[arg-type]


def test_the_blur_is_a_gaussian_of_an_eighth_of_each_side() -> None:
    point = torch.zeros(1, 1, 16, 32, dtype=torch.float64)
    point[0, 0, 8, 16] = 1.0
    spot = blurred(point)[0, 0]
    for down, right in ((2, 0), (0, 4), (2, 4)):  # a standard deviation away, along one axis or both
        share = math.exp(-((down / 2) ** 2 + (right / 4) ** 2) / 2)
        assert float(spot[8 + down, 16 + right] / spot[8, 16]) == pytest.approx(share, rel=0.02)
