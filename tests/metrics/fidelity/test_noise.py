"""Max-sensitivity, stability and random maps: explanations that stay, that follow, and that jump."""

from __future__ import annotations

import pytest
import torch
from fidelity_cases import LeftHalf, always, gradients, pictures
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import rank_correlation
from captum_lipschitz.metrics.fidelity import max_sensitivity, random_explanation, stability
from captum_lipschitz.metrics.fidelity.draws import generators, uniform_noise


def test_what_does_not_move() -> None:
    model, (images, targets) = LeftHalf(), pictures(3)
    for explain in (gradients(model), always(torch.rand(1, 6, 6, dtype=torch.float64))):
        assert max_sensitivity(explain, images, targets).tolist() == [0.0] * 3
        assert stability(explain, images, targets).tolist() == [1.0] * 3


@settings(max_examples=8, deadline=None)
@given(seeds, st.floats(1e-4, 0.5), st.integers(1, 4))
def test_an_explanation_that_is_the_image_moves_as_the_noise_does(seed: int, radius: float, samples: int) -> None:
    images, targets = pictures(3, seed=seed)
    found = max_sensitivity(lambda x, _: x, images, targets, radius=radius, samples=samples)
    sources = generators(images, None, "max-sensitivity")
    noise = torch.stack([uniform_noise(sources, images, radius) for _ in range(samples)])
    assert float(noise.abs().max()) <= radius
    expected = (noise.flatten(2).norm(dim=2) / images.flatten(1).norm(dim=1)).amax(0)
    assert found.tolist() == pytest.approx(expected.tolist())


@settings(max_examples=6, deadline=None)
@given(seeds, st.floats(1e-3, 1e3))
def test_scaling_permuting_and_splitting_change_nothing(seed: int, factor: float) -> None:
    model, (images, targets) = build_convolutional(seed), build_batch(seed, 3)
    explain, turned = gradients(model), torch.tensor([2, 0, 1])
    for measure in (max_sensitivity, stability):
        whole = measure(explain, images, targets, bounds=(0, 1))
        scaled = measure(lambda x, y: factor * explain(x, y), images, targets, bounds=(0, 1))
        assert torch.allclose(scaled, whole)
        assert torch.allclose(measure(explain, images[turned], targets[turned], bounds=(0, 1)), whole[turned])
        assert torch.allclose(measure(explain, images[1:2], targets[1:2], bounds=(0, 1)), whole[1:2])
        known = explain(images.clone(), targets)
        assert torch.equal(measure(explain, images, targets, bounds=(0, 1), attributions=known), whole)
    assert bool((whole.abs() <= 1).all())


@pytest.mark.parametrize("measure", [max_sensitivity, stability])
def test_a_method_is_asked_as_often_as_stated_and_shown_images_within_bounds(measure: object) -> None:
    images, targets = pictures(2)
    images[0] = 0.0
    asked: list[Tensor] = []

    def explain(inputs: Tensor, _: Tensor) -> Tensor:
        asked.append(inputs)
        return 1 + inputs

    count = {"samples": 4} if measure is max_sensitivity else {"draws": 4}
    measure(explain, images, targets, bounds=(0, 1), radius=0.5, **count)  # type: ignore[operator]
    assert [len(inputs) for inputs in asked] == [2] * 5
    assert all(bool(((x >= 0) & (x <= 1)).all()) for x in asked)
    assert all(float((x - images).abs().max()) > 0.2 for x in asked[1:])


def test_noise_has_the_scale_of_its_feature() -> None:
    rows, targets, scale = torch.rand(3, 2), torch.zeros(3).long(), torch.tensor([1.0, 0.0])
    fixed = max_sensitivity(lambda x, _: x * torch.tensor([0.0, 1.0]), rows, targets, scale=scale, radius=0.1)
    moving = max_sensitivity(lambda x, _: x * torch.tensor([1.0, 0.0]), rows, targets, scale=scale, radius=0.1)
    assert fixed.tolist() == [0.0] * 3
    assert bool((moving > 0).all())


def test_an_explanation_that_says_nothing_has_no_value() -> None:
    images, targets = pictures(2)
    nothing = torch.zeros(1, 6, 6, dtype=torch.float64)
    assert max_sensitivity(always(nothing), images, targets).isnan().tolist() == [True, True]
    assert stability(always(nothing + 3), images, targets).isnan().tolist() == [True, True]


def test_a_random_map_jumps_under_the_slightest_change() -> None:
    (images, targets), explain = pictures(40), random_explanation()
    assert abs(float(stability(explain, images, targets, radius=1e-9).mean())) < 0.1
    assert float(max_sensitivity(explain, images, targets, radius=1e-9).min()) > 1.0


def test_random_maps_are_those_of_the_image_the_class_and_the_seed() -> None:
    (images, targets), explain = pictures(3), random_explanation()
    maps = explain(images, targets)
    assert maps.shape == images.shape
    assert maps.dtype == images.dtype
    assert torch.equal(explain(images.flip(0), targets), maps.flip(0))
    others = [
        explain(images, targets + 1),
        random_explanation(generator=torch.Generator().manual_seed(5))(images, targets),
    ]
    for other in others:
        assert bool((rank_correlation(maps[:, 0], other[:, 0]).abs() < 0.6).all())
    generator = torch.Generator().manual_seed(5)
    state = generator.get_state()
    random_explanation(generator=generator)(images, targets)
    assert torch.equal(generator.get_state(), state)


def test_bad_input_is_refused() -> None:
    images, targets = pictures(2)
    explain = random_explanation()
    with pytest.raises(InvalidInputError, match="samples"):
        max_sensitivity(explain, images, targets, samples=0)
    with pytest.raises(InvalidInputError, match="draws"):
        stability(explain, images, targets, draws=0)
    with pytest.raises(InvalidInputError, match="radius"):
        stability(explain, images, targets, radius=-1.0)
    with pytest.raises(InvalidTypeError, match="explain"):
        max_sensitivity(None, images, targets)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="explain: expected attributions of the images' shape"):
        stability(lambda x, _: x[:1], images, targets)
    with pytest.raises(InvalidTypeError, match="generator"):
        random_explanation(generator=3)  # type: ignore[arg-type]
