"""ROAD and randomised parameters: Quantus's own, where it is installed, and the reason where it is not."""

from __future__ import annotations

import copy
import importlib.util

import numpy as np
import pytest
import torch
from contracts import assert_unchanged, half_frozen, snapshot
from fidelity_cases import LEFT, LeftHalf, always, gradients, makes, pictures, times_inputs
from strategies import build_batch, build_convolutional
from torch import nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, MissingDependencyError
from captum_lipschitz.metrics import explanation_fidelity, position_maps, rank_correlation
from captum_lipschitz.metrics.fidelity import optional, parameter_randomisation, random_explanation, road

needs_quantus = pytest.mark.skipif(importlib.util.find_spec("quantus") is None, reason="Quantus is not installed")


@needs_quantus
@pytest.mark.parametrize("channels", [1, 3])
def test_road_of_maps_that_are_right_and_wrong(channels: int) -> None:
    model = LeftHalf(channels=channels, offset=13.5 * channels)
    images, targets = torch.zeros(2, channels, 6, 6, dtype=torch.float64), torch.zeros(2).long()
    images[:, :, LEFT] = 1.0  # filled in from the dark half, what the model sees is dark
    order = torch.rand(2, 6, 6, dtype=torch.float64)
    right = road(model, images, targets, order + LEFT, percentages=(50,))
    wrong = road(model, images, targets, order + ~LEFT, percentages=(50,))
    assert right.tolist() == [0.0, 0.0]
    assert wrong.tolist() == [1.0, 1.0]
    levels = road(model, images, targets, order + LEFT, percentages=(1, 50))  # one in a hundred of 36 is none
    assert levels.tolist() == [0.5, 0.5]


@needs_quantus
def test_road_of_an_image_is_its_own() -> None:
    model, (images, _) = build_convolutional(3), build_batch(4, 6)
    targets = model(images).argmax(1)
    maps = torch.rand(6, 5, 5, dtype=torch.float64)
    whole = road(model, images, targets, maps)
    assert bool(((whole >= 0) & (whole <= 1)).all())
    assert torch.equal(road(model, images, targets, 7 * maps), whole)
    assert torch.equal(road(model, images.flip(0), targets.flip(0), maps.flip(0)), whole.flip(0))
    assert torch.equal(road(model, images[2:3], targets[2:3], maps[2:3]), whole[2:3])


@needs_quantus
def test_road_where_nothing_can_be_said() -> None:
    model = LeftHalf(offset=-1.0)
    images, targets = pictures(3)
    targets[1] = 1  # not what the model decides
    maps = torch.rand(3, 6, 6, dtype=torch.float64)
    maps[2] = 1.0
    assert road(model, images, targets, maps).isnan().tolist() == [False, True, True]
    with pytest.raises(InvalidInputError, match="it is for pictures"):
        road(nn.Linear(4, 2), torch.rand(2, 4), targets[:2], torch.rand(2, 4))
    with pytest.raises(InvalidInputError, match="percentages: expected percentages below 100"):
        road(model, images, targets, maps, percentages=(100,))


@needs_quantus
def test_what_does_not_look_at_the_model_does_not_change_with_it() -> None:
    model, (images, targets) = build_convolutional(0), build_batch(1, 4)
    for explain in (random_explanation(), always(torch.rand(2, 5, 5, dtype=torch.float64))):
        found = parameter_randomisation(model, images, targets, make=makes(explain))
        assert found.tolist() == pytest.approx([1.0] * 4)


@needs_quantus
@pytest.mark.parametrize("magnitude", [True, False])
def test_it_is_the_correlation_with_the_map_of_a_reset_copy(magnitude: bool) -> None:
    model, (images, targets) = build_convolutional(0), build_batch(1, 4)
    generator = torch.Generator().manual_seed(11)
    found = parameter_randomisation(model, images, targets, make=times_inputs, magnitude=magnitude, generator=generator)
    reset = copy.deepcopy(model)
    for module in reset.modules():
        if hasattr(module, "reset_parameters"):
            torch.manual_seed(12)
            module.reset_parameters()
    before, after = (
        position_maps(times_inputs(m)(images.clone(), targets), images, magnitude=magnitude) for m in (model, reset)
    )
    assert found.tolist() == pytest.approx(rank_correlation(before, after).tolist())
    alone = parameter_randomisation(
        model, images[1:2], targets[1:2], make=times_inputs, magnitude=magnitude, generator=generator
    )
    assert torch.allclose(alone, found[1:2])


@needs_quantus
def test_maps_that_are_negative_throughout_are_maps() -> None:
    model, (images, targets) = build_convolutional(0), build_batch(1, 4)
    make = makes(always(-1 - torch.rand(2, 5, 5, dtype=torch.float64)))
    found = parameter_randomisation(model, images, targets, make=make, magnitude=False)
    assert found.tolist() == pytest.approx([1.0] * 4)


@needs_quantus
def test_maps_that_rank_nothing_have_no_correlation() -> None:
    model, (images, targets) = build_convolutional(0), build_batch(1, 3)
    nothing = torch.ones(2, 5, 5, dtype=torch.float64)
    assert parameter_randomisation(model, images, targets, make=makes(always(nothing))).isnan().all()

    def make(seen: nn.Module) -> object:  # says nothing of any model but its own
        return gradients(seen) if seen is model else always(nothing)

    assert parameter_randomisation(model, images, targets, make=make).isnan().all()  # type: ignore[arg-type]


@needs_quantus
def test_no_trace_is_left() -> None:
    model, (images, targets) = half_frozen(build_convolutional(0)), build_batch(1, 3)
    before, numbers = snapshot(model, images), np.random.get_state()[1].tolist()  # noqa: NPY002
    road(model, images, targets, torch.rand(3, 5, 5, generator=torch.Generator().manual_seed(0)))
    parameter_randomisation(model, images, targets, make=gradients)
    assert_unchanged(before, snapshot(model, images))
    assert np.random.get_state()[1].tolist() == numbers  # noqa: NPY002


@needs_quantus
def test_models_that_cannot_be_randomised_are_refused() -> None:
    images, targets = pictures(2)
    with pytest.raises(InvalidInputError, match="model: the model is a function"):
        parameter_randomisation(lambda x: x.flatten(1), images, targets, make=gradients)
    with pytest.raises(InvalidInputError, match="no layer with reset_parameters"):
        parameter_randomisation(LeftHalf(), images, targets, make=gradients)
    with pytest.raises(InvalidTypeError, match="make"):
        parameter_randomisation(nn.Linear(6, 2), images, targets, make=None)  # type: ignore[arg-type]


def test_without_quantus_its_measures_are_left_out_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optional, "find_spec", lambda _: None)
    model, (images, targets) = build_convolutional(0), build_batch(1, 2)
    measures = ["deletion", "road", "parameter_randomisation"]
    found = explanation_fidelity(model, images, targets, make=gradients, measures=measures)
    assert list(found.values) == ["deletion"]
    assert sorted(found.left_out) == ["parameter_randomisation", "road"]
    assert all("pip install quantus" in why for why in found.left_out.values())
    with pytest.raises(MissingDependencyError, match="pip install quantus"):
        road(model, images, targets, torch.rand(2, 5, 5))
    with pytest.raises(MissingDependencyError, match="pip install quantus"):
        parameter_randomisation(model, images, targets, make=gradients)
