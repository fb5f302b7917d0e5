"""Two models whose difference is known: which is the more robust, and where adversarial explanations gain."""

from __future__ import annotations

import pytest
import torch

from captum_lipschitz.metrics import AraResult
from captum_lipschitz.report.compared import Measured, comparison, more_robust, robust_finding, robustness_finding
from captum_lipschitz.report.tabled import INVALIDATION

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
