"""Explanations under attack: models whose answer is known, explanations right and wrong by construction."""

from __future__ import annotations

import json
import math

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given, settings
from strategies import Case, build_batch, build_convolutional, linear_cases, seeds
from torch import Tensor, nn

from captum_lipschitz import MinimumNormAttack
from captum_lipschitz.attacks import AttackResult
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import Explain, InvalidationResult, invalidation


def gradients(model: nn.Module) -> Explain:
    def explain(images: Tensor, targets: Tensor) -> Tensor:
        images.requires_grad_()
        found: Tensor = torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]
        return found

    return explain


def pointing_at(region: Tensor) -> Explain:
    """The same map for every image: larger the nearer the picture's corner, within a region (H, W) only."""
    order = 1 + torch.arange(region.numel(), dtype=torch.float64).flip(0).reshape(region.shape)
    return lambda images, _: (order * region).expand(len(images), 1, *region.shape)


class TwoSided(nn.Module):
    """A linear model of two classes, margin ``w . x + 1``, that ignores the right half of 6 x 6 pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(1, 2, 36, dtype=torch.float64).reshape(1, 6, 6))
        with torch.no_grad():
            self.weight[..., 3:] = 0

    def forward(self, inputs: Tensor) -> Tensor:
        margin = (inputs * self.weight).flatten(1).sum(1) + 1
        return torch.stack([margin, torch.zeros_like(margin)], 1)


LEFT = torch.zeros(6, 6, dtype=torch.bool)
LEFT[:, :3] = True


@settings(max_examples=6)
@given(linear_cases())
def test_a_linear_models_gradient_stays_as_it_is(case: Case) -> None:
    model = nn.Sequential(case.model)
    result = invalidation(model, case.inputs, case.labels, explain=gradients(model), confined=False)
    assert bool(result.changed.all())
    for values in (result.same_class.rank_correlation, result.same_class.top_overlap, result.same_class.cosine):
        assert values.tolist() == [1.0] * len(case.inputs)
    assert bool((result.new_class.cosine <= 1).all())
    assert bool((result.decisions != case.labels).all())
    assert torch.equal(model(_adversarial(model, case)).argmax(1), result.decisions)


def _adversarial(model: nn.Module, case: Case) -> Tensor:
    return MinimumNormAttack()(model, case.inputs, case.labels).adversarial_inputs


@pytest.mark.parametrize("area", [0.1, 0.25, 0.5])
def test_the_figures_of_a_linear_model_in_closed_form(area: float) -> None:
    model = TwoSided()
    images = torch.zeros(3, 1, 6, 6, dtype=torch.float64)  # margin 1
    weight = model.weight.detach()[0]
    result = invalidation(model, images, torch.zeros(3).long(), explain=gradients(model), area=area)
    count = round(36 * area)
    shifts = 6 if count == 18 else 1  # whole columns: a shift along them changes nothing
    top = weight.flatten().sort(descending=True).values[:count]
    whole, inside = float(weight.norm()), float(top.norm())
    values = result.values()
    assert values["outside"].tolist() == pytest.approx([1 - inside**2 / whole**2] * 3, rel=1e-3)
    assert values["at_random"].tolist() == pytest.approx([1 - count / 36] * 3)
    assert values["placements_as_good"].tolist() == pytest.approx([shifts / 36] * 3)
    assert result.distances.tolist() == pytest.approx([1 / whole / 6] * 3, rel=1e-3)
    assert result.within_region.tolist() == pytest.approx([1 / inside / 6] * 3, rel=1e-3)
    assert values["strength_within"].tolist() == pytest.approx([inside / whole] * 3, rel=1e-3)
    if count < 18:
        rest = math.sqrt(whole**2 - inside**2)
        assert result.outside_region.tolist() == pytest.approx([1 / rest / 6] * 3, rel=1e-3)
    else:  # the model looks at nothing else
        assert result.outside_region.tolist() == [math.inf] * 3
        assert values["strength_outside"].tolist() == [0.0] * 3


def test_an_explanation_that_points_where_the_model_does_not_look() -> None:
    model = TwoSided()
    images, labels = torch.zeros(8, 1, 6, 6, dtype=torch.float64), torch.zeros(8).long()
    right = invalidation(model, images, labels, explain=pointing_at(LEFT), area=0.5)
    wrong = invalidation(model, images, labels, explain=pointing_at(~LEFT), area=0.5)
    assert wrong.energy.outside.tolist() == [1.0] * 8
    assert wrong.within_region.tolist() == [math.inf] * 8
    assert wrong.outside_region.tolist() == pytest.approx(wrong.distances.tolist(), rel=1e-3)
    assert right.energy.outside.tolist() == [0.0] * 8
    assert right.outside_region.tolist() == [math.inf] * 8
    assert right.within_region.tolist() == pytest.approx(right.distances.tolist(), rel=1e-3)
    verdicts = {
        name: [result.estimates()[name].compared_with(0.0) for result in (right, wrong)]
        for name in ("outside_minus_at_random", "within_minus_outside")
    }
    assert verdicts == {"outside_minus_at_random": ["below", "above"], "within_minus_outside": ["above", "below"]}


def test_similarity_is_of_the_maps_before_and_after_for_both_classes() -> None:
    model, (images, _) = build_convolutional(0), build_batch(1, 4)
    labels, explain = model(images).argmax(1), gradients(model)
    attacked = MinimumNormAttack()(model, images, labels)
    result = invalidation(model, images, labels, explain=explain, magnitude=False, attacked=attacked, confined=False)
    before = explain(images.clone(), labels).sum(1).flatten(1)
    for found, targets in ((result.same_class, labels), (result.new_class, result.decisions)):
        after = explain(attacked.adversarial_inputs.clone(), targets).sum(1).flatten(1)
        assert torch.allclose(found.cosine, torch.cosine_similarity(before, after), atol=1e-9)
        assert bool(found.structural.isnan().all())  # 5 x 5 pixels
    assert not bool((result.same_class.cosine == result.new_class.cosine).any())
    assert bool(result.within_region.isnan().all())


def test_images_without_a_figure_say_so_and_do_not_count() -> None:
    class Partly:
        """Finds nothing for the first image."""

        def __call__(self, model: nn.Module, images: Tensor, labels: Tensor, criterion: object = None) -> AttackResult:
            found = MinimumNormAttack(effort="fast")(model, images, labels)
            keep = torch.arange(len(images)) > 0
            return AttackResult(found.adversarial_inputs, found.distances, keep, found.gradient_evaluations)

    model, (images, _) = build_convolutional(0), build_batch(1, 4)
    labels = model(images).argmax(1)
    labels[3] = (labels[3] + 1) % 4
    result = invalidation(model, images, labels, explain=gradients(model), attack=Partly(), confined=False)
    assert len(result) == 4
    assert result.correct.tolist() == [True, True, True, False]
    assert result.changed.tolist() == [False, True, True, False]
    assert result.distances[0] == math.inf
    assert math.isnan(result.distances[3])
    assert torch.equal(result.decisions[[0, 3]], labels[[0, 3]])
    estimates = result.estimates()
    assert estimates["changed"].mean == pytest.approx(2 / 3)
    assert (estimates["cosine"].images, estimates["cosine"].left_out) == (2, 2)


def test_where_every_image_is_wrong_nothing_is_explained() -> None:
    def never(images: Tensor, targets: Tensor) -> Tensor:
        raise AssertionError

    model, (images, _) = build_convolutional(0), build_batch(1, 2)
    labels = (model(images).argmax(1) + 1) % 4
    result = invalidation(model, images, labels, explain=never)
    assert not bool(result.changed.any())
    assert all(bool(values.isnan().all()) for values in result.values().values())


def test_a_constant_explanation_has_no_figure_but_the_attack_has() -> None:
    model, (images, _) = build_convolutional(0), build_batch(1, 2)
    result = invalidation(model, images, model(images).argmax(1), explain=lambda x, _: torch.ones_like(x))
    assert bool(result.changed.all())
    assert bool(torch.isfinite(result.distances).all())
    assert all(bool(values.isnan().all()) for values in result.values().values())
    assert bool(result.within_region.isnan().all() & result.outside_region.isnan().all())


@settings(max_examples=4)
@given(seeds)
def test_answers_do_not_depend_on_neighbours(seed: int) -> None:
    model, (images, labels) = build_convolutional(seed), build_batch(seed, 4)
    labels[:3] = model(images).argmax(1)[:3]
    options = {"explain": gradients(model), "attack": MinimumNormAttack(effort="fast")}
    together = invalidation(model, images, labels, **options)
    order = torch.tensor([2, 0])
    apart = invalidation(model, images[order], labels[order], **options)
    for name, values in apart.values().items():
        assert torch.allclose(values, together.values()[name][order], atol=1e-6, equal_nan=True), name


def test_no_trace_is_left_also_on_an_error() -> None:
    model, (images, labels) = half_frozen(build_convolutional(0)), build_batch(1, 3)
    before = snapshot(model, images)
    invalidation(model, images, labels, explain=gradients(model), attack=MinimumNormAttack(effort="fast"))
    assert_unchanged(before, snapshot(model, images))
    breaking = Breaking(model, 20, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        invalidation(breaking, images, labels, explain=gradients(model))
    assert_unchanged(before, snapshot(model, images))


def test_results_survive_json_and_repeat() -> None:
    model = TwoSided()
    images, labels = torch.zeros(9, 1, 6, 6, dtype=torch.float64), torch.zeros(9).long()
    result = invalidation(model, images, labels, explain=pointing_at(~LEFT), area=0.5)
    assert isinstance(result, InvalidationResult)
    plain = json.loads(json.dumps(result.to_dict()))
    assert plain["within_region"] == [None] * 9
    assert plain["found_within_region"] == [False] * 9
    assert plain["found_outside_region"] == [True] * 9
    assert plain["values"]["outside"] == [1.0] * 9
    assert plain["estimates"]["outside"]["mean"] == 1.0
    generator = torch.Generator().manual_seed(7)
    assert result.estimates(generator=generator)["outside"].interval == (1.0, 1.0)


def test_bad_input_is_refused() -> None:
    model, (images, labels) = build_convolutional(0), build_batch(1, 2)
    explain = gradients(model)
    with pytest.raises(InvalidTypeError, match="explain: expected a function of images and targets, got NoneType"):
        invalidation(model, images, labels, explain=None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"area: expected a share between 0 and 1, got 20"):
        invalidation(model, images, labels, explain=explain, area=20)
    with pytest.raises(InvalidInputError, match=r"top: expected a share between 0 and 1, got 0"):
        invalidation(model, images, labels, explain=explain, top=0)
    with pytest.raises(InvalidTypeError, match="attacked: expected an AttackResult or None, got dict"):
        invalidation(model, images, labels, explain=explain, attacked={})  # type: ignore[arg-type]
    other = MinimumNormAttack(effort="fast")(model, images, labels)
    with pytest.raises(
        InvalidInputError, match=r"attacked: expected adversarial inputs of the images' shape, \(1, 2, 5"
    ):
        invalidation(model, images[:1], labels[:1], explain=explain, attacked=other)
    with pytest.raises(InvalidInputError, match=r"labels: expected classes in 0..3, got 4..4"):
        invalidation(model, images, torch.tensor([4, 4]), explain=explain)
    right = model(images).argmax(1)
    with pytest.raises(InvalidInputError, match="explain: expected attributions of the images' shape"):
        invalidation(model, images, right, explain=lambda x, _: x[:, 0])
