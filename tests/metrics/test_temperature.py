"""The fitted temperature, and the area below chance at it."""

from __future__ import annotations

import json
import math

import oracles
import pytest
import torch
from contracts import assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor, nn

from captum_lipschitz import (
    BelowChance,
    BelowChanceAreas,
    accuracy_robustness_area,
    below_chance_areas,
    fit_temperature,
)
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError


def _itself(images: Tensor) -> Tensor:
    return images


def _calibratable(seed: int, count: int = 60, num_classes: int = 4) -> tuple[Tensor, Tensor]:
    """Logits that favour the label on average, and are wrong for some images."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(num_classes, (count,), generator=generator)
    logits = torch.randn(count, num_classes, generator=generator, dtype=torch.float64)
    logits += 1.5 * nn.functional.one_hot(labels, num_classes)
    logits[0] = -3.0 * nn.functional.one_hot(labels[0], num_classes)
    return logits, labels


@given(seeds, st.floats(-3, 3))
def test_it_is_the_least_loss_that_a_plain_search_finds(seed: int, log_scale: float) -> None:
    logits, labels = _calibratable(seed)
    logits = logits * 10**log_scale
    assert fit_temperature(_itself, (logits, labels)) == pytest.approx(oracles.temperature(logits, labels), rel=1e-6)


def test_closed_form_of_two_classes() -> None:
    # A share q is right, with log-odds 7: the best log-odds are log(q / (1 - q)).
    logits = torch.tensor([[7.0, 0.0]]).repeat(10, 1)
    labels = torch.tensor([0] * 9 + [1])
    assert fit_temperature(_itself, (logits, labels)) == pytest.approx(7 / math.log(9), rel=1e-12)


@given(seeds, st.integers(-300, 300))
def test_it_scales_with_the_logits_to_the_bit(seed: int, exponent: int) -> None:
    logits, labels = _calibratable(seed)
    once = fit_temperature(_itself, (logits, labels))
    assert fit_temperature(_itself, (logits * 2.0**exponent, labels)) == once * 2.0**exponent


def test_a_single_close_mistake_among_many_is_enough() -> None:
    logits = torch.tensor([[5.0, 0.0]]).repeat(1000, 1)
    logits[0] = torch.tensor([0.0, 1e-3])
    labels = torch.zeros(1000, dtype=torch.int64)
    fitted = fit_temperature(_itself, (logits, labels))
    assert fitted == pytest.approx(oracles.temperature(logits.double(), labels), rel=1e-5)


def test_logits_that_no_temperature_fits_are_refused() -> None:
    labels = torch.arange(6) % 3
    right = nn.functional.one_hot(labels, 3).double()
    with pytest.raises(InvalidInputError, match="got all 6 right"):
        fit_temperature(_itself, (right, labels))
    with pytest.raises(InvalidInputError, match="larger logits than other classes"):
        fit_temperature(_itself, (-right, labels))
    with pytest.raises(InvalidInputError, match="larger logits than other classes"):
        fit_temperature(_itself, (torch.zeros(6, 3), labels))  # no temperature changes anything
    with pytest.raises(InvalidInputError, match="at least one batch"):
        fit_temperature(_itself, [])
    with pytest.raises(ModelOutputError, match="NaN"):
        fit_temperature(lambda x: x * math.nan, (right, labels))


def test_batches_are_one_data_set_and_the_model_is_left_as_it_was() -> None:
    model = half_frozen(build_convolutional(1)).train()
    inputs, labels = build_batch(0, 30)
    labels[:20] = build_convolutional(1)(inputs[:20]).argmax(1)
    before = snapshot(model)
    whole = fit_temperature(model, (inputs, labels))
    parts = fit_temperature(model, iter(zip(inputs.split(7), labels.split(7), strict=True)))
    assert parts == pytest.approx(whole, rel=1e-12)
    assert_unchanged(before, snapshot(model))


class _Louder(nn.Module):
    """The same decisions with logits ``factor`` times as large."""

    def __init__(self, model: nn.Module, factor: float) -> None:
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images: Tensor) -> Tensor:
        output: Tensor = self.model(images) * self.factor
        return output


def _mostly_right() -> tuple[nn.Module, tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    model = build_convolutional(1)
    inputs, labels = build_batch(0, 60)
    labels[:48] = model(inputs[:48]).argmax(1)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    inputs, labels = inputs[order], labels[order]
    return model, (inputs[:20], labels[:20]), (inputs[20:], labels[20:])


def test_at_the_fitted_temperature_the_logits_scale_does_not_matter() -> None:
    model, data, held_out = _mostly_right()
    plain = below_chance_areas(model, data, held_out=held_out)
    doubled = below_chance_areas(_Louder(model, 1024.0), data, held_out=held_out)  # a power of 2: nothing is rounded
    assert isinstance(plain, BelowChanceAreas)
    assert doubled.temperature == 1024 * plain.temperature
    assert torch.equal(doubled.fitted.distances, plain.fitted.distances)
    assert doubled.fitted.area == plain.fitted.area
    assert doubled.raw.area != pytest.approx(plain.raw.area, rel=0.05)  # which is why the temperature is fitted
    louder = below_chance_areas(_Louder(model, 1000.0), data, held_out=held_out)
    torch.testing.assert_close(louder.fitted.distances, plain.fitted.distances, rtol=1e-6, atol=1e-12)


def test_both_areas_are_those_of_the_criterion() -> None:
    model, data, held_out = _mostly_right()
    areas = below_chance_areas(model, data, held_out=held_out, norm="l2", chance=0.1)
    temperature = fit_temperature(model, held_out)
    assert areas.temperature == temperature
    for result, criterion in ((areas.raw, BelowChance()), (areas.fitted, BelowChance(temperature=temperature))):
        expected = accuracy_robustness_area(model, data, criterion=criterion, norm="l2", chance=0.1)
        assert torch.equal(result.distances, expected.distances)
        assert (result.criterion, result.norm) == (repr(criterion), "l2")
    assert json.dumps(areas.to_dict())
    assert f"T = {temperature:.4g}" in str(areas)
    with pytest.raises(InvalidTypeError, match="gone through twice"):
        below_chance_areas(model, iter([data]), held_out=held_out)
