"""Infidelity: what theory says of a linear model, and Captum's value against an obvious loop."""

from __future__ import annotations

import sys

import pytest
import torch
from fidelity_cases import LEFT, LeftHalf, gradients, pictures, times_inputs
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.fidelity import infidelity
from captum_lipschitz.metrics.fidelity.draws import generators
from captum_lipschitz.metrics.fidelity.infidelity import _removed


@pytest.mark.parametrize("objective", ["logit", "log_odds", "margin"])
def test_a_linear_model_is_predicted_by_its_gradient_and_by_its_contributions(objective: str) -> None:
    model, (images, targets) = LeftHalf(channels=2), pictures(3, channels=2)
    gradient, parts = gradients(model)(images, targets), times_inputs(model)(images, targets)
    values = infidelity(model, images, targets, gradient, objective=objective)
    assert values.tolist() == pytest.approx([0.0] * 3, abs=1e-9)
    assert infidelity(model, images, targets, parts, contributions=True).tolist() == pytest.approx([0.0] * 3, abs=1e-9)
    assert bool((infidelity(model, images, targets, parts) > 1e-3).all())  # taken for what it is not
    nothing = infidelity(model, images, targets, torch.zeros_like(images))
    assert nothing.tolist() == pytest.approx([1.0] * 3)


def test_contributions_are_relative_to_the_reference() -> None:
    model, (images, targets) = LeftHalf(), pictures(3)
    parts = (images - 0.5) * gradients(model)(images, targets)
    assert infidelity(model, images, targets, parts, contributions=True, reference=0.5).tolist() == pytest.approx(
        [0.0] * 3, abs=1e-9
    )
    assert bool((infidelity(model, images, targets, parts, contributions=True) > 1e-3).all())


def test_a_map_of_what_the_model_ignores_predicts_nothing() -> None:
    model, (images, targets) = LeftHalf(), pictures(4)
    wrong = (~LEFT).double().expand_as(images)
    right = LEFT.double().expand_as(images)
    says_nothing, says_something = (infidelity(model, images, targets, a, samples=64) for a in (wrong, right))
    assert bool((says_nothing > says_something + 0.2).all())


@settings(max_examples=6, deadline=None)
@given(seeds, st.booleans())
def test_the_value_is_that_of_an_obvious_loop(seed: int, contributions: bool) -> None:
    model, (images, targets) = build_convolutional(seed), build_batch(seed, 2)
    attributions = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = infidelity(model, images, targets, attributions, contributions=contributions, samples=5)
    for row, source in enumerate(generators(images, None, "infidelity")):
        promised, changed = [], []
        for mask in _removed(source, images[row], 5):
            without = images[row].clone()
            without[mask.expand_as(without)] = 0.0
            taken = mask.double().expand_as(without) if contributions else images[row] - without
            promised.append(float((attributions[row] * taken).sum()))
            outputs = model(torch.stack([images[row], without]))[:, targets[row]].detach()
            changed.append(float(outputs[0] - outputs[1]))
        a, b = torch.tensor(promised, dtype=torch.float64), torch.tensor(changed, dtype=torch.float64)
        best = a @ b / (a @ a)
        assert float(found[row]) == pytest.approx(float((best * a - b).square().sum() / b.square().sum()), abs=1e-9)


@settings(max_examples=8, deadline=None)
@given(seeds, st.floats(1e-3, 1e3))
def test_range_and_what_changes_nothing(seed: int, factor: float) -> None:
    model, (images, targets) = build_convolutional(seed), build_batch(seed, 4)
    attributions = torch.randn(images.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    whole = infidelity(model, images, targets, attributions, samples=6)
    assert bool(((whole >= 0) & (whole <= 1)).all())
    turned = torch.tensor([3, 1, 0, 2])
    assert torch.allclose(infidelity(model, images, targets, factor * attributions, samples=6), whole)
    assert torch.allclose(infidelity(model, images, targets, -attributions, samples=6), whole)
    permuted = infidelity(model, images[turned], targets[turned], attributions[turned], samples=6)
    assert torch.allclose(permuted, whole[turned])
    assert torch.allclose(infidelity(model, images[1:2], targets[1:2], attributions[1:2], samples=6), whole[1:2])


def test_one_block_can_always_be_explained_and_many_are_split() -> None:
    model, (images, targets) = LeftHalf(), pictures(3)
    gradient = gradients(model)(images, targets)
    one = infidelity(model, images, targets, gradient + 0.1, samples=1)
    assert one[~one.isnan()].tolist() == pytest.approx([0.0] * int((~one.isnan()).sum()), abs=1e-9)
    assert infidelity(model, images, targets, gradient, samples=300).tolist() == pytest.approx([0.0] * 3, abs=1e-9)


def test_where_nothing_can_be_said() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    gradient = gradients(model)(images, targets)
    unchanged = infidelity(model, images, targets, gradient, reference=images)
    assert unchanged.isnan().tolist() == [True, True]
    gradient = gradient.clone()
    gradient[1, 0, 0, 0] = torch.inf
    assert infidelity(model, images, targets, gradient).isnan().tolist() == [False, True]


def test_rows_and_coarse_maps_and_seeds() -> None:
    model = torch.nn.Linear(5, 3).double()
    rows, targets = torch.rand(2, 5, dtype=torch.float64), torch.tensor([2, 0])
    assert infidelity(model, rows, targets, model.weight[targets]).tolist() == pytest.approx([0.0] * 2, abs=1e-9)
    network, (images, labels) = build_convolutional(0), build_batch(1, 2)
    coarse = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    first, again, other = (
        infidelity(network, images, labels, coarse, contributions=True, generator=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_bad_input_is_refused() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    with pytest.raises(InvalidInputError, match="samples"):
        infidelity(model, images, targets, images, samples=0)
    with pytest.raises(InvalidInputError, match="explain: expected attributions of the images' shape"):
        infidelity(model, images, targets, images[:1])
    with pytest.raises(InvalidInputError, match="objective"):
        infidelity(model, images, targets, images, objective="probability")
    with pytest.raises(InvalidTypeError, match="generator"):
        infidelity(model, images, targets, images, generator=3)  # type: ignore[arg-type]


def test_images_are_of_their_own_whatever_goes_to_captum_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = build_convolutional(0), build_batch(1, 5)[0]
    targets = torch.arange(5) % 2
    attributions, reference = torch.randn(2, *images.shape, generator=torch.Generator().manual_seed(2)).to(images)
    whole = infidelity(model, images, targets, attributions, reference=reference, samples=4)
    monkeypatch.setattr(sys.modules[infidelity.__module__], "_ROWS", 8)  # two images
    parts = infidelity(model, images, targets, attributions, reference=reference, samples=4)
    torch.testing.assert_close(parts, whole, rtol=1e-9, atol=0)


@pytest.mark.parametrize(("side", "largest"), [(1, 1), (2, 1), (5, 2), (8, 4)])
def test_blocks_have_sides_from_one_to_half_of_the_pictures(side: int, largest: int) -> None:
    masks = _removed(torch.Generator().manual_seed(0), torch.zeros(3, side, 12), 400)
    assert masks.shape == (400, 1, side, 12)
    heights, widths = masks.any(3).sum(2), masks.any(2).sum(2)
    assert heights.unique().tolist() == list(range(1, largest + 1))
    assert widths.unique().tolist() == list(range(1, 7))
    assert torch.equal(masks.sum((1, 2, 3)), (heights * widths).squeeze(1))  # whole boxes
    assert masks.any(0).all()  # which lie anywhere
