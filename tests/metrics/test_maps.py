"""Attributions become one value for each position."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import Explain, position_maps
from captum_lipschitz.metrics.maps import at_input_shape, attributed, check_explain


def test_channels_are_summed_by_magnitude_or_signed() -> None:
    images, attributions = torch.zeros(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert torch.equal(position_maps(attributions, images), attributions.abs().sum(1))
    assert torch.equal(position_maps(attributions, images, magnitude=False), attributions.sum(1))


def test_attributions_at_the_shape_of_the_images() -> None:
    images, whole, coarse = torch.zeros(2, 3, 8, 9), torch.randn(2, 3, 8, 9), torch.randn(2, 1, 2, 3)
    assert torch.equal(at_input_shape(whole, images), whole)
    enlarged = at_input_shape(coarse, images)
    assert torch.equal(enlarged[:, 2], position_maps(coarse, images, magnitude=False))
    assert torch.equal(enlarged[:, 0], enlarged[:, 2])
    with pytest.raises(InvalidInputError, match="explain: expected attributions of the images' shape"):
        at_input_shape(torch.randn(2, 1, 9, 9), images)
    with pytest.raises(InvalidTypeError, match="explain"):
        at_input_shape(coarse.long(), images)


def test_rows_have_a_position_for_each_feature() -> None:
    attributions = torch.randn(2, 6)
    assert torch.equal(position_maps(attributions, torch.zeros(2, 6)), attributions.abs())


def test_a_coarse_map_is_interpolated() -> None:
    coarse = torch.randn(2, 1, 2, 3)
    found = position_maps(coarse, torch.zeros(2, 3, 8, 9), magnitude=False)
    expected = F.interpolate(coarse, (8, 9), mode="bilinear", align_corners=False)[:, 0]
    assert torch.equal(found, expected)
    flat = position_maps(torch.full((1, 1, 2, 2, 2), -3.0), torch.zeros(1, 2, 4, 4, 4))
    assert torch.allclose(flat, torch.full((1, 4, 4, 4), 3.0))
    one_channel = torch.randn(2, 1, 8, 9)
    assert torch.equal(position_maps(one_channel, torch.zeros(2, 3, 8, 9)), one_channel[:, 0].abs())


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (2, 2, 8, 8), (2, 1, 9, 8), (2, 1, 8), (2, 8, 8)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInputError, match=r"explain: expected attributions of the images' shape, \(2, 3, 8, 8\)"):
        position_maps(torch.zeros(shape), torch.zeros(2, 3, 8, 8))
    with pytest.raises(InvalidTypeError, match=r"explain: expected a floating tensor of attributions, got torch.int64"):
        position_maps(torch.zeros(2, 4).long(), torch.zeros(2, 4))


def test_a_method_gets_copies_and_may_take_gradients_where_they_are_off() -> None:
    def spoils(images: Tensor, targets: Tensor) -> Tensor:
        images.requires_grad_()
        found = torch.autograd.grad((images * images).sum(), images, create_graph=True)[0]
        targets.zero_()
        images.detach().zero_()
        return found

    method: Explain = spoils
    images, targets = torch.rand(2, 4), torch.tensor([1, 1])
    before = images.clone()
    with torch.no_grad():
        found = attributed(method, images, targets)
    assert torch.equal(found, 2 * before)
    assert not found.requires_grad
    assert torch.equal(images, before)
    assert not images.requires_grad
    assert targets.tolist() == [1, 1]


def test_what_cannot_be_called_is_refused_with_the_way_to_do_it() -> None:
    with pytest.raises(InvalidTypeError, match=r"explain: expected a function .* got str; for a Captum method lambda"):
        check_explain("saliency")
