"""Attacks within a region: closed forms, regions without influence, and attacks that mix images up."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from contracts import assert_unchanged, half_frozen, snapshot
from hypothesis import given, settings
from oracles import minimal_distances
from strategies import Case, build_batch, build_convolutional, linear_cases, seeds
from torch import Tensor, nn

from captum_lipschitz import AttackResult, MinimumNormAttack, PaperAttack
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import confined_distances
from captum_lipschitz.metrics.confinement import ConfinedModel
from captum_lipschitz.metrics.measurement import AnyAttack


class LeftHalf(nn.Module):
    """Decides by the left half of a picture, and never looks at the right one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_convolutional(3)

    def forward(self, inputs: Tensor) -> Tensor:
        seen = inputs.clone()
        seen[..., 3:] = 0.25
        logits: Tensor = self.inner(seen)
        return logits


class Shuffling:
    """An attack that runs the model on other selections of the images than it was given, as others' attacks do."""

    def __call__(self, model: object, inputs: Tensor, labels: Tensor, criterion: object = None) -> AttackResult:
        order = torch.arange(len(inputs)).flip(0).repeat(2)

        def reordered(images: Tensor) -> Tensor:
            assert callable(model)
            logits: Tensor = model(images[order])
            return logits[: len(images)].flip(0)

        return MinimumNormAttack()(reordered, inputs, labels)


@settings(max_examples=8)
@given(linear_cases(), seeds)
def test_a_linear_model_within_some_features_is_the_model_of_these(case: Case, seed: int) -> None:
    features = case.inputs.shape[1]
    region = torch.rand(case.inputs.shape, generator=torch.Generator().manual_seed(seed)) < 0.6
    region[:, 0] = True
    found = confined_distances(case.model, case.inputs, case.labels, region)
    for i, row in enumerate(region):
        restricted = copy.deepcopy(case.model)
        assert isinstance(restricted, nn.Linear)
        with torch.no_grad():
            restricted.bias += restricted.weight @ (case.inputs[i] * ~row)
            restricted.weight *= row
        image = case.inputs[i : i + 1]
        expected = minimal_distances(restricted, image, case.labels[i : i + 1], 2) / math.sqrt(features)
        assert float(found[i]) == pytest.approx(float(expected), rel=2e-3)


def test_a_region_that_the_model_ignores_gives_no_attack() -> None:
    model, (images, _) = LeftHalf(), build_batch(0, 4)
    labels = model(images).argmax(1)
    left = torch.zeros(4, 5, 5, dtype=torch.bool)
    left[..., :3] = True
    whole = MinimumNormAttack()(model, images, labels).distances
    assert bool(torch.isinf(confined_distances(model, images, labels, ~left)).all())
    assert torch.allclose(confined_distances(model, images, labels, left), whole, rtol=1e-3)


@pytest.mark.parametrize("attack", [MinimumNormAttack(effort="fast"), PaperAttack(steps=40, rho=2.0), Shuffling()])
def test_every_image_has_its_own_region_whatever_its_neighbours(attack: AnyAttack) -> None:
    model, (images, labels) = build_convolutional(1), build_batch(2, 5)
    region = torch.rand(5, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    found = confined_distances(model, images, labels, region, attack=attack)
    order = [3, 0, 4]
    other = confined_distances(model, images[order], labels[order], region[order], attack=attack)
    assert torch.allclose(other, found[order], rtol=1e-6)
    misclassified = model(images).argmax(1) != labels
    assert bool((found[misclassified] == 0).all())
    assert bool((found[~misclassified] > 0).all())


def test_an_attack_that_mixes_images_up_is_right_all_the_same() -> None:
    model, (images, _) = build_convolutional(1), build_batch(2, 4)
    labels = model(images).argmax(1)
    region = torch.rand(4, 5, 5, generator=torch.Generator().manual_seed(0)) < 0.5
    found = confined_distances(model, images, labels, region, attack=Shuffling())
    assert torch.allclose(found, confined_distances(model, images, labels, region), rtol=1e-6)


def test_false_claims_count_as_not_found() -> None:
    def lies(model: object, inputs: Tensor, labels: Tensor, criterion: object = None) -> AttackResult:
        found = torch.ones(len(inputs), dtype=torch.bool)
        return AttackResult(inputs + 1e-9, torch.full((len(inputs),), 1e-9), found, torch.zeros_like(labels))

    model, (images, _) = build_convolutional(1), build_batch(2, 3)
    region = torch.ones(3, 5, 5, dtype=torch.bool)
    found = confined_distances(model, images, model(images).argmax(1), region, attack=lies)
    assert found.tolist() == [math.inf] * 3


@given(seeds)
def test_the_confined_model_sees_changes_within_the_region_only(seed: int) -> None:
    model, (images, _) = build_convolutional(0), build_batch(seed, 3)
    mask = torch.rand(3, 1, 5, 5, generator=torch.Generator().manual_seed(seed)) < 0.5
    confined = ConfinedModel(model, images, mask)
    changed = images + torch.where(mask, 0.0, 1.0)
    leaf = changed.requires_grad_()
    logits = confined(leaf)
    assert torch.equal(logits, model(images))
    logits.sum().backward()
    assert leaf.grad is not None
    assert bool((leaf.grad[(~mask).expand_as(images)] == 0).all())
    index = torch.tensor([2, 0, 2])
    assert torch.equal(
        confined.rows(index).seen(images[index] + 1), torch.where(mask[index], images[index] + 1, images[index])
    )


def test_no_trace_is_left() -> None:
    model, (images, labels) = half_frozen(build_convolutional(0)), build_batch(1, 2)
    region = torch.ones(2, 5, 5, dtype=torch.bool)
    before = snapshot(model, images)
    confined_distances(model, images, labels, region)
    assert_unchanged(before, snapshot(model, images))
    with torch.inference_mode():
        assert bool((confined_distances(model, images.clone(), labels, region) >= 0).all())


def test_bad_input_is_refused_before_the_model_runs() -> None:
    def never(images: Tensor) -> Tensor:
        raise AssertionError

    images, labels = build_batch(0, 2)
    with pytest.raises(InvalidInputError, match=r"region: expected one value for each position, \(2, 5, 5\), got"):
        confined_distances(never, images, labels, torch.ones(2, 2, 5, 5, dtype=torch.bool))
    with pytest.raises(InvalidTypeError, match=r"region: expected a bool tensor, got torch.float64"):
        confined_distances(never, images, labels, images[:, 0])
    with pytest.raises(InvalidInputError, match="labels: expected one class per image"):
        confined_distances(never, images, labels[:1], images[:, 0] > 0)
