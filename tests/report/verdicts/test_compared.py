"""Two models whose difference is known: which is the more robust, and where adversarial explanations gain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from captum_lipschitz.metrics import AraResult
from captum_lipschitz.report.verdicts.compared import (
    Measured,
    area_difference,
    comparison,
    more_robust,
    robust_finding,
    robustness_finding,
)
from captum_lipschitz.report.verdicts.tabled import INVALIDATION

IMAGES = 16


def _model(name: str, size: float, gain: float, *, images: int = IMAGES) -> Measured:
    """A model whose images all have about one distance, and whose adversarial explanations gain so much."""
    noise = torch.linspace(-0.01, 0.01, images, dtype=torch.float64)
    area = AraResult.of(
        size + noise * size, torch.zeros(images, dtype=torch.int64), torch.ones(images, dtype=torch.bool),
        chance_accuracy=0.5, class_chance_accuracy=0.5, gradient_evaluations=0, norm="rmse", criterion="a",
        attack="none",
    )  # fmt: skip
    fidelity = {
        "adversarial": {"insertion": 0.5 + gain + noise, "deletion": 0.5 - gain - noise},
        "saliency": {"insertion": 0.5 - noise, "deletion": 0.5 + noise},
    }
    return Measured(name, area, {"saliency": {"outside": 0.5 + gain + noise}}, fidelity)


def test_the_advantage_grows_with_robustness() -> None:
    which, finding = robust_finding(_model("robust", 0.2, 0.3), _model("plain", 0.1, 0.1)) or (None, None)
    assert which == 0
    assert finding is not None
    assert finding.support == "supported"
    assert finding.figures["by Deletion"].mean == pytest.approx(0.2)
    assert "robust is the more robust one" in finding.text


def test_an_advantage_that_shrinks_is_said_to() -> None:
    which, finding = robust_finding(_model("plain", 0.1, 0.3), _model("robust", 0.2, 0.1)) or (None, None)
    assert which == 1
    assert finding is not None
    assert finding.support == "contradicted"


def test_models_that_cannot_be_told_apart() -> None:
    same, again = _model("a", 0.1, 0.1), _model("b", 0.1, 0.1)
    assert more_robust(same, again) is None
    assert robust_finding(same, again) is None
    few = _model("a", 0.1, 0.1, images=4), _model("b", 0.2, 0.1, images=4)
    assert more_robust(*few) is None
    finding = robustness_finding(*few)
    assert finding is not None
    assert finding.support == "undecided"
    assert "too few" in finding.text


def test_the_comparison_is_second_minus_first() -> None:
    first, second = _model("a", 0.1, 0.1), _model("b", 0.2, 0.3)
    found = comparison(first, second, INVALIDATION)
    assert found["Saliency: Change outside"].mean == pytest.approx(0.2)
    assert found["Adversarial explanation: Deletion"].mean == pytest.approx(-0.2)
    assert found["Accuracy"].mean == 0
    assert found["Accuracy-Robustness Area"].mean == pytest.approx(0.05, rel=0.05)
    swapped = comparison(second, first, INVALIDATION)
    assert {name: -one.mean for name, one in swapped.items()} == pytest.approx({n: o.mean for n, o in found.items()})


def _with(model: Measured, method: str, **values: torch.Tensor) -> Measured:
    """The model with further figures of a method."""
    return replace(model, fidelity={**model.fidelity, method: {**model.fidelity.get(method, {}), **values}})


def test_log_odds_are_not_compared_between_models() -> None:
    first, second = _model("robust", 0.2, 0.3), _model("plain", 0.1, 0.1)
    before = robust_finding(first, second)
    figures = ("behaviour_toward", "behaviour_away", "stability", "max_sensitivity", "parameter_randomisation")
    for scale in (1.0, 0.01):
        given = dict.fromkeys(figures, torch.linspace(1, 2, IMAGES, dtype=torch.float64) * scale)
        first, second = (_with(model, name, **given) for model, name in ((first, "adversarial"), (second, "saliency")))
        first, second = (_with(model, name, **given) for model, name in ((first, "saliency"), (second, "adversarial")))
    assert robust_finding(first, second) == before
    found = comparison(first, second, INVALIDATION)
    assert "Saliency: Stability" in found
    assert not [name for name in found if "Toward" in name or "Away" in name]


def test_a_method_without_values_on_one_model_is_named_and_not_counted() -> None:
    models = [_model("robust", 0.2, 0.3), _model("plain", 0.1, 0.1)]
    _, before = robust_finding(*models) or (0, None)
    nothing = torch.full((IMAGES,), torch.nan, dtype=torch.float64)
    dead = [_with(models[0], "grad_cam", insertion=nothing), _with(models[1], "grad_cam", insertion=nothing + 1)]
    for pair in (
        dead,
        [dead[0], _with(models[1], "grad_cam", insertion=torch.ones_like(nothing))],
        [dead[0], models[1]],
    ):
        _, found = robust_finding(*pair) or (0, None)
        assert before is not None
        assert found is not None
        assert found.figures == before.figures
        assert "Not counted, for want of values on both models: Grad-CAM (by Insertion and Deletion)." in found.text


def test_an_images_mean_is_over_the_methods_that_both_models_have_there() -> None:
    models = [_model("robust", 0.2, 0.3), _model("plain", 0.1, 0.1)]
    half = torch.where(torch.arange(IMAGES) < 8, models[0].fidelity["saliency"]["insertion"], torch.nan)
    one, other = _with(models[0], "lime", insertion=half), _with(models[1], "lime", insertion=torch.zeros(IMAGES))
    _, found = robust_finding(one, other) or (0, None)
    assert found is not None
    assert found.figures["by Insertion"].images == IMAGES
    # plain's advantage over the mean of 0.5 and 0 is larger by 0.25 on the half that has both
    assert found.figures["by Insertion"].mean == pytest.approx(0.2 - 0.25 / 2, abs=0.01)


def test_an_area_of_zero_is_compared_and_an_endless_one_says_why_not() -> None:
    zero, model = _model("zero", 0.0, 0.1), _model("plain", 0.1, 0.1)
    assert zero.area is not None
    assert model.area is not None
    for pair, support in (((zero, model), "supported"), ((model, zero), "contradicted")):
        finding = robustness_finding(*pair)
        assert finding is not None
        assert finding.support == support
    assert more_robust(model, zero) == 0
    endless = replace(zero, area=replace(zero.area, distances=zero.area.distances + torch.inf, area=torch.inf))
    finding = robustness_finding(endless, model)
    assert finding is not None
    assert finding.support == "undecided"
    assert "cannot be compared: the first model's area is infinite" in finding.text
    assert endless.area is not None
    assert area_difference(model.area, endless.area) is None
    other = replace(model, area=replace(model.area, chance_accuracy=0.1))
    finding = robustness_finding(model, other)
    assert finding is not None
    assert "areas of different chance accuracy, 0.5 and 0.1" in finding.text
