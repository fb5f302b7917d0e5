"""One method, all measures: right and wrong by construction, by image, without a trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from fidelity_cases import LEFT, LeftHalf, always, gradients, makes, pictures, times_inputs
from hypothesis import given, settings
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.metrics import FIDELITY_MEASURES, FidelitySettings, FidelityValues, explanation_fidelity
from captum_lipschitz.metrics.fidelity import RememberedModel

OURS = [key for key in FIDELITY_MEASURES if key not in ("road", "parameter_randomisation")]


def test_the_gradient_of_a_linear_model_has_every_figure_that_theory_says() -> None:
    model, (images, targets) = LeftHalf(), pictures(4)
    found = explanation_fidelity(model, images, targets, make=gradients, measures=OURS)
    assert list(found.values) == OURS
    assert found.values["infidelity"].tolist() == pytest.approx([0.0] * 4, abs=1e-9)
    assert found.values["max_sensitivity"].tolist() == [0.0] * 4
    assert found.values["stability"].tolist() == [1.0] * 4
    for side in ("behaviour_toward", "behaviour_away"):
        assert found.values[side].tolist() == pytest.approx([6 * float(model.weight.detach().norm())] * 4)


def test_a_map_of_the_half_that_the_model_ignores_is_worse_in_every_way_that_looks_at_the_model() -> None:
    model, (images, targets) = LeftHalf(), pictures(4)
    order = 1 + torch.arange(36, dtype=torch.float64).reshape(1, 6, 6) / 36
    right, wrong = (
        explanation_fidelity(
            model, images, targets, make=makes(always(order * half)), measures=OURS, baseline=torch.zeros(6, 6)
        ).values
        for half in (LEFT, ~LEFT)
    )
    for key in ("insertion", "deletion", "infidelity", "behaviour_toward", "behaviour_away"):
        sign = 1 if FIDELITY_MEASURES[key].better == "higher" else -1
        assert bool((sign * right[key] > sign * wrong[key]).all()), key
    assert wrong["behaviour_toward"].tolist() == [0.0] * 4


@settings(max_examples=4, deadline=None)
@given(seeds)
def test_an_images_values_do_not_depend_on_its_neighbours_its_place_or_its_chunk(seed: int) -> None:
    model, (images, targets) = build_convolutional(seed), build_batch(seed, 5)

    def taken(rows: list[int], chunk: int) -> dict[str, Tensor]:
        use = FidelitySettings(images_at_once=chunk, infidelity_samples=4, steps=4)
        return explanation_fidelity(
            model, images[rows], targets[rows], make=times_inputs, contributions=True, bounds=(0, 1), settings=use,
            measures=OURS,
        ).values  # fmt: skip

    whole = taken([0, 1, 2, 3, 4], 5)
    for rows, chunk in (([0, 1, 2, 3, 4], 2), ([3, 1, 4, 0, 2], 3), ([2], 1)):
        for key, values in taken(rows, chunk).items():
            assert torch.allclose(values, whole[key][rows], equal_nan=True), key


@pytest.mark.filterwarnings("ignore::UserWarning:captum")
def test_all_measures_are_taken_or_left_out_with_a_reason() -> None:
    model, (images, targets) = build_convolutional(0), build_batch(1, 3)
    found = explanation_fidelity(model, images, targets, make=gradients, direction_known=False)
    assert set(found.values) | set(found.left_out) == set(FIDELITY_MEASURES)
    assert "no signs" in found.left_out["behaviour_toward"]
    assert all(values.shape == (3,) and values.dtype == torch.float64 for values in found.values.values())
    rows = explanation_fidelity(
        torch.nn.Linear(4, 3), torch.rand(2, 4), torch.tensor([0, 1]), make=gradients, baseline=torch.zeros(4)
    )
    assert "road" in rows.left_out
    assert set(rows.values) | set(rows.left_out) == set(FIDELITY_MEASURES)


def test_signed_contributions_rank_otherwise_than_magnitudes() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    negative = -100.0 * (~LEFT).double() + LEFT  # the other half speaks against it, as far as this map goes
    rank = {"measures": ["insertion"], "make": makes(always(negative[None])), "baseline": torch.zeros(6, 6)}
    signed = explanation_fidelity(model, images, targets, contributions=True, **rank).values["insertion"]
    unsigned = explanation_fidelity(model, images, targets, **rank).values["insertion"]
    assert bool((signed > unsigned).all())


def test_a_remembered_model_gives_the_same_and_is_run_less() -> None:
    calls: list[int] = []

    class Counting(torch.nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            calls.append(len(inputs))
            return super().forward(inputs)  # type: ignore[no-any-return]

    model, (images, targets) = Counting(build_convolutional(0)).eval(), build_batch(1, 3)
    settings_ = {"make": makes(always(torch.rand(2, 5, 5, dtype=torch.float64))), "measures": ["infidelity"]}
    plain = explanation_fidelity(model, images, targets, **settings_)  # type: ignore[arg-type]
    memory = RememberedModel(model)
    calls.clear()
    first = explanation_fidelity(model, images, targets, remembered=memory, **settings_)  # type: ignore[arg-type]
    run = sum(calls)
    again = explanation_fidelity(model, images, targets, remembered=memory, **settings_)  # type: ignore[arg-type]
    assert torch.allclose(first.values["infidelity"], plain.values["infidelity"])
    assert torch.equal(first.values["infidelity"], again.values["infidelity"])
    assert sum(calls) == run == len(memory)
    with pytest.raises(InvalidInputError, match="remembered"):
        explanation_fidelity(build_convolutional(0), images, targets, remembered=memory, **settings_)  # type: ignore[arg-type]


def test_no_trace_is_left_also_on_an_error() -> None:
    model, (images, targets) = half_frozen(build_convolutional(0)), build_batch(1, 3)
    before = snapshot(model, images)
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    explanation_fidelity(model, images, targets, make=gradients, measures=OURS, generator=generator)
    assert_unchanged(before, snapshot(model, images))
    assert torch.equal(generator.get_state(), state)
    breaking = Breaking(model, 12, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        explanation_fidelity(breaking, images, targets, make=gradients, measures=OURS)
    assert_unchanged(before, snapshot(model, images))


def test_chunks_are_joined() -> None:
    parts = [
        FidelityValues({"road": torch.ones(2), "deletion": torch.ones(2)}, {}),
        FidelityValues({"deletion": torch.zeros(1)}, {"road": "why"}),
    ]
    joined = FidelityValues.joined(parts)
    assert joined.values["deletion"].tolist() == [1.0, 1.0, 0.0]
    assert joined.left_out == {"road": "why"}
    assert list(joined.values) == ["deletion"]
    with pytest.raises(InvalidInputError, match="parts"):
        FidelityValues.joined([])


BAD: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "unknown measure": ({"measures": ["beauty"]}, InvalidInputError, "measures: expected some of .*beauty"),
    "no measure": ({"measures": []}, InvalidInputError, "measures: expected some of"),
    "one string": ({"measures": "road"}, InvalidTypeError, "measures: expected keys"),
    "no method": ({"make": None}, InvalidTypeError, "make: expected a function"),
    "settings": ({"settings": {"steps": 3}}, InvalidTypeError, "settings: expected FidelitySettings"),
    "bounds": ({"bounds": (0.4, 0.6)}, InvalidInputError, "images: expected values within the bounds"),
    "scale": ({"scale": torch.ones(7)}, InvalidInputError, "scale: expected it to broadcast"),
    "reference": ({"reference": torch.ones(7)}, InvalidInputError, "reference: expected values that broadcast"),
    "generator": ({"generator": 1}, InvalidTypeError, "generator: expected a torch.Generator"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_arguments_are_refused_before_the_method_is_asked(name: str) -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    changed, error, message = BAD[name]

    def never(_: object) -> Any:
        raise AssertionError("work was done")

    with pytest.raises(error, match=message):
        explanation_fidelity(model, images, targets, **{"make": never, **changed})


def test_bad_images_targets_and_models_are_refused() -> None:
    model, (images, targets) = LeftHalf(), pictures(2)
    with pytest.raises(InvalidInputError, match=r"targets: expected classes in 0\.\.1"):
        explanation_fidelity(model, images, targets + 2, make=gradients)
    with pytest.raises(InvalidInputError, match="NaN"):
        explanation_fidelity(model, images * torch.nan, targets, make=gradients)
    with pytest.raises(ModelOutputError, match="at least two classes"):
        explanation_fidelity(lambda x: model(x)[:, :1], images, targets, make=gradients)
    with pytest.raises(InvalidInputError, match="baseline: expected the data's mean"):
        explanation_fidelity(torch.nn.Linear(4, 2), torch.rand(2, 4), targets, make=gradients)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"steps": 0}, "steps: expected at least 1"),
        ({"rho": 0.0}, "rho: expected a finite number above 0"),
        ({"stability_radius": float("nan")}, "stability_radius"),
        ({"road_percentages": (0, 10)}, "road_percentages"),
        ({"objective": "beauty"}, "objective: expected one of"),
        ({"infidelity_samples": 0}, "infidelity_samples"),
    ],
)
def test_settings_out_of_range_are_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        FidelitySettings(**changed)


def test_settings_of_another_type_are_refused() -> None:
    for changed in ({"steps": 2.5}, {"sensitivity_samples": True}, {"rho": "small"}, {"road_percentages": 10}):
        with pytest.raises(InvalidTypeError, match=next(iter(changed))):
            FidelitySettings(**changed)  # type: ignore[arg-type]
