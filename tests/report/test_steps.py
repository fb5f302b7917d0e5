"""Steps of an audit on models for which the answer is known: each method is judged by what it claims."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from audited import CLASSES, linear
from torch import Tensor, nn

from captum_lipschitz.metrics.fidelity import RememberedModel, explanation_fidelity
from captum_lipschitz.metrics.fidelity.settings import FidelitySettings
from captum_lipschitz.report.explanations.methods import Method, all_methods
from captum_lipschitz.report.steps import Chunk, faithful, pictured

AVERAGE = torch.full((1, 6), 4.0, dtype=torch.float64)

FEW = {"steps": 2, "infidelity_samples": 16, "sensitivity_samples": 1}


def _random(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def _infidelity(model: nn.Module, images: Tensor, method: Method) -> float:
    subject: Any = SimpleNamespace(model=model, bounds=None, average=AVERAGE)
    settings: Any = SimpleNamespace(rho=0.1, seed=0, plan=SimpleNamespace(fidelity=FEW))
    chunk = Chunk(images, torch.zeros(len(images), dtype=torch.long), 0)
    found = faithful(subject, chunk, method, settings)
    return float(found.values["infidelity"].mean())


@pytest.mark.parametrize("name", ["input_x_gradient", "integrated_gradients", "occlusion", "lime"])
def test_contributions_are_judged_relative_to_what_they_are_relative_to(name: str) -> None:
    model, rows = linear(_random(CLASSES, 6) - 0.5), 3 + 2 * _random(2, 6)
    methods, _ = all_methods(model, rows[:1], effort="thorough", baseline=AVERAGE)
    assert _infidelity(model, rows, methods[name]) < 0.01


@pytest.mark.parametrize("name", ["input_x_gradient", "integrated_gradients", "occlusion", "lime"])
def test_so_are_those_of_images(name: str) -> None:
    # A ramp, and one weight everywhere, so that windows and patches lose little.
    ramp = torch.linspace(0.5, 1, 8, dtype=torch.float64)
    images = (ramp[:, None] * ramp)[None, None]
    model = linear(torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64).view(3, 1, 1, 1).expand(3, 1, 8, 8))
    methods, _ = all_methods(model, images[:1], effort="thorough")
    assert _infidelity(model, images, methods[name]) < 0.05


def test_a_method_is_judged_of_the_output_that_it_explains() -> None:
    model, rows = linear(_random(CLASSES, 6) - 0.5), _random(4, 6)
    methods, _ = all_methods(model, rows[:1], rho=1e-3)
    assert [name for name, method in methods.items() if method.objective == "log_odds"] == ["adversarial"]
    assert _infidelity(model, rows, methods["saliency"]) < 1e-6
    assert _infidelity(model, rows, methods["adversarial"]) < 0.02


def test_what_is_judged_by_different_outputs_still_shares_forward_passes() -> None:
    model, rows = linear(_random(CLASSES, 6) - 0.5), _random(4, 6)
    methods, _ = all_methods(model, rows[:1])
    remembered = RememberedModel(model)
    seen = []
    for name in ("saliency", "adversarial"):
        explanation_fidelity(
            model,
            rows,
            torch.zeros(4, dtype=torch.long),
            make=methods[name].make,
            settings=FidelitySettings(objective=methods[name].objective),
            measures=["infidelity"],
            reference=methods[name].reference(rows),
            remembered=remembered,
        )
        seen.append(len(remembered))
    assert seen[0] == seen[1] > 0


def test_what_decides_for_no_label_predicts_none() -> None:
    model, rows = linear(torch.tensor([[1.0, 0.0], [0.0, 1.0]])), torch.tensor([[-1.0, -2.0], [-1.0, 2.0]])
    methods, _ = all_methods(model, rows[:1], effort="fast", multi_label=True)
    subject: Any = SimpleNamespace(
        model=model,
        head=SimpleNamespace(kind="multi_label"),
        methods={"saliency": methods["saliency"]},
        classes=("a", "b"),
        bounds=None,
        data=SimpleNamespace(name=str),
    )
    settings: Any = SimpleNamespace(rho=0.1, images=True, plan=SimpleNamespace(classes=2, sizes=(1.0,)))
    step = pictured(subject, Chunk(rows, torch.zeros(2, 2).long(), 0), settings)
    assert [image["prediction"] for image in step.notes["images"]] == [None, "b"]
