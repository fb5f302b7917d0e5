"""Methods of an audit on models for which the answer is known."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from audited import CLASSES, batch, build, linear
from sklearn.linear_model import Ridge
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.report.explanations.methods import all_methods
from captum_lipschitz.report.explanations.removing import _Ridge, filling, patches, windows


def _explained(model: nn.Module, name: str, images: Tensor, targets: Tensor, **given: object) -> Tensor:
    methods, _ = all_methods(model, images[:1], **{"effort": "fast", **given})
    return methods[name].make(model)(images, targets)


def _weight(*shape: int) -> Tensor:
    return torch.randn(CLASSES, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def test_gradients_of_a_linear_model_are_its_weights() -> None:
    weight, (images, targets) = _weight(3, 8, 8), batch("colour")
    model, images = linear(weight), images.double()
    for name in ("saliency", "smooth_grad"):
        torch.testing.assert_close(_explained(model, name, images, targets), weight[targets])
    for name in ("input_x_gradient", "integrated_gradients"):
        torch.testing.assert_close(_explained(model, name, images, targets), weight[targets] * images)
    baseline = torch.full((1, 3, 8, 8), 0.5)
    found = _explained(model, "integrated_gradients", images, targets, baseline=baseline)
    torch.testing.assert_close(found, weight[targets] * (images - 0.5))


def test_integrated_gradients_start_within_the_bounds() -> None:
    weight, (images, targets) = _weight(3, 8, 8), batch("colour")
    found = _explained(linear(weight), "integrated_gradients", images.double() + 1, targets, bounds=(1, 2))
    torch.testing.assert_close(found, weight[targets] * images)


def test_between_two_classes_the_explanation_is_the_difference_of_their_weights() -> None:
    weight = _weight(3, 8, 8)[:2]
    images, targets = batch("colour")[0].double(), torch.tensor([0, 1, 0])
    found = _explained(linear(weight), "adversarial", images, targets, rho=0.2)
    expected = weight[targets] - weight[1 - targets]
    torch.testing.assert_close(F.cosine_similarity(found.flatten(1), expected.flatten(1)), torch.ones(3).double())


def test_occlusion_takes_a_feature_or_a_window_away() -> None:
    weight, (rows, targets) = _weight(6), batch("row")
    found = _explained(linear(weight), "occlusion", rows.double(), targets)
    torch.testing.assert_close(found, weight[targets] * rows)
    # An output that is one pixel: only windows over it say anything.
    weight, (images, targets) = torch.zeros(2, 3, 8, 8), batch("colour")
    weight[:, 0, 5, 2] = torch.tensor([1.0, -1.0])
    found = _explained(linear(weight), "occlusion", images, targets % 2, effort="standard", baseline=torch.zeros(()))
    expected = torch.zeros(8, 8)
    expected[4:7, 1:4] = torch.tensor([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / torch.tensor([4.0])
    signs = 1 - 2 * (targets % 2).float()
    torch.testing.assert_close(found[:, 0], expected * (images[:, 0, 5, 2] * signs)[:, None, None])


def test_lime_finds_the_weights_of_a_linear_model() -> None:
    weight, (rows, targets) = _weight(6), batch("row")
    found = _explained(linear(weight), "lime", rows.double(), targets, effort="thorough")
    expected = weight[targets] * rows
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.02)


def test_the_ridge_is_scikit_learns() -> None:
    generator = torch.Generator().manual_seed(0)
    there = torch.randint(2, (50, 7), generator=generator).float()
    outputs, similarity = torch.randn(50, generator=generator), torch.rand(50, generator=generator)
    ours = _Ridge()
    ours.fit([(there, outputs, similarity)])
    theirs = Ridge(alpha=1.0).fit(there, outputs, sample_weight=similarity)
    np.testing.assert_allclose(ours.representation().numpy(), theirs.coef_, rtol=1e-4, atol=1e-6)


def test_grad_cam_weighs_the_last_maps_by_their_mean_gradients() -> None:
    model, (images, targets) = build("colour"), batch("colour")
    methods, _ = all_methods(model, images[:1])
    assert methods["grad_cam"].cost == "1 gradient; maps of 4 x 4 of the layer 4"  # the activation before pooling
    maps = model[:5](images).detach().requires_grad_()
    logits = model[5:](maps).gather(1, targets[:, None])
    (gradient,) = torch.autograd.grad(logits.sum(), maps)
    expected = F.relu((gradient.mean((2, 3), keepdim=True) * maps).sum(1, keepdim=True))
    torch.testing.assert_close(methods["grad_cam"].make(model)(images, targets), expected.detach())


@pytest.mark.parametrize(("activation", "slope"), [(nn.ReLU, lambda x: (x > 0).double()),
                                                   (HalfHuberReLU, lambda x: x.clamp(0, 0.5) / 0.5)])  # fmt: skip
def test_guided_backprop_cuts_negative_gradients_off(
    activation: Callable[[], nn.Module], slope: Callable[[Tensor], Tensor]
) -> None:
    first, second = nn.Linear(6, 8).double(), nn.Linear(8, CLASSES).double()
    rows, targets = batch("row")
    rows = rows.double()
    found = _explained(nn.Sequential(first, activation(), second), "guided_backprop", rows, targets)
    hidden = first(rows)
    expected = (slope(hidden) * second.weight[targets].relu()) @ first.weight
    torch.testing.assert_close(found, expected.detach())


def test_windows_cover_everything_and_patches_are_a_grid() -> None:
    assert windows((32, 32), 8) == ((8, 8), (4, 4), 49)
    assert windows((3,), 8) == ((2,), (1,), 2)
    assert windows((1, 4), 2) == ((1, 4), (1, 2), 1)
    numbers = patches((3, 7, 5), 3)
    assert numbers.shape == (1, 3, 7, 5)
    assert numbers.unique().tolist() == list(range(9))
    assert (numbers[:, 0] == numbers[:, 2]).all()
    assert patches((4,), 2).tolist() == [[0, 1, 2, 3]]
    assert patches((1, 2, 2, 2), 5).unique().tolist() == list(range(8))


def test_a_channels_mean_stands_for_nothing() -> None:
    image = batch("colour")[0][:1]
    torch.testing.assert_close(filling(image, None), image.mean((2, 3), keepdim=True).expand_as(image))
    assert not filling(torch.rand(1, 4), None).any()
    assert (filling(torch.rand(1, 4), torch.ones(())) == 1).all()


@pytest.mark.parametrize("name", ["lime", "smooth_grad"])
def test_images_that_are_nearly_equal_get_the_same_draws(name: str) -> None:
    model, (images, targets) = build("colour").double(), batch("colour")
    near = images.double() + 1e-9
    first, second = (_explained(model, name, x, targets) for x in (images.double(), near))
    # Other draws would change the answer by a good part of itself.
    assert (first - second).abs().max() < 1e-4 * first.abs().max()
