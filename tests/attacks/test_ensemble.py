"""Several attacks as one: never worse than its best member, and no member is believed without a check."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from oracles import minimal_distances
from strategies import Case, build_batch, build_convolutional, cases, linear_cases
from torch import Tensor, nn

from captum_lipschitz import (
    L2,
    Attack,
    AttackResult,
    Criterion,
    EnsembleAttack,
    MinimumNormAttack,
    PaperAttack,
    accuracy_robustness_area,
)
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Found, Problem
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

MEMBERS = [PaperAttack(steps=20, rho=0.6), PaperAttack(steps=20, rho=1.0)]  # each is the better one on some images


class Liar:
    """Claims that the clean image has been fooled already, and has no norm or bounds."""

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = "misclassified"
    ) -> AttackResult:
        found = torch.ones(len(inputs), dtype=torch.bool)
        return AttackResult(
            inputs.clone(), torch.zeros(len(inputs), dtype=inputs.dtype), found, torch.ones_like(labels)
        )


class Starting(Attack):
    """Remembers the images that it may start from, and finds nothing."""

    def __init__(self, images: Tensor | None = None) -> None:
        super().__init__()
        self.images = images

    def search(self, problem: Problem) -> Found:
        nothing = torch.zeros(len(problem), dtype=torch.bool)
        return Found(torch.zeros_like(problem.inputs), nothing, torch.zeros_like(problem.labels))

    def starting_from(self, images: Tensor) -> Starting:
        return Starting(images)


@given(linear_cases())
def test_linear_models_have_a_closed_form(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    exact = minimal_distances(case.model, case.inputs, case.labels, 2)
    members = [PaperAttack(steps=5, norm="l2"), MinimumNormAttack(norm="l2")]
    result = EnsembleAttack(members)(case.model, case.inputs, case.labels)
    torch.testing.assert_close(result.distances, exact, rtol=1e-4, atol=0)


@given(cases())
def test_each_image_gets_the_smallest_answer_and_the_sum_of_the_gradients(case: Case) -> None:
    alone = [member(case.model, case.inputs, case.labels) for member in MEMBERS]
    together = EnsembleAttack(MEMBERS)(case.model, case.inputs, case.labels)
    smallest = torch.stack([result.distances for result in alone]).amin(0)
    torch.testing.assert_close(together.distances, smallest, rtol=1e-9, atol=1e-12)
    assert torch.equal(together.gradient_evaluations, sum(result.gradient_evaluations for result in alone))


def test_both_members_are_of_use() -> None:
    inputs, _ = build_batch(1, 60)
    model = build_convolutional(2)
    labels = model(inputs).argmax(1)
    first, second = (member(model, inputs, labels).distances for member in MEMBERS)
    assert (first < second).any()
    assert (second < first).any()


def test_a_false_claim_displaces_nothing() -> None:
    inputs, labels = build_batch(1, 10)
    model = build_convolutional(2)
    honest = MEMBERS[0](model, inputs, labels)
    result = EnsembleAttack([Liar(), MEMBERS[0], Liar()])(model, inputs, labels)
    torch.testing.assert_close(result.distances, honest.distances, rtol=1e-9, atol=1e-12)
    alone = EnsembleAttack([Liar()])(model, inputs, labels)
    open_rows = honest.distances > 0
    assert torch.isinf(alone.distances[open_rows]).all()
    assert (alone.gradient_evaluations[open_rows] == 1).all()


def test_norm_and_bounds_are_those_of_the_members() -> None:
    ensemble = EnsembleAttack([Liar(), MinimumNormAttack(norm="linf", bounds=(0, 1)), Liar()])
    assert (ensemble.norm.name, ensemble.bounds) == ("linf", (0.0, 1.0))
    plain = EnsembleAttack([Liar()])
    assert (plain.norm.name, plain.bounds) == ("rmse", None)
    told = EnsembleAttack((Liar(),), norm="l2", bounds=(0, 1))
    assert (told.norm.name, told.bounds) == ("l2", (0.0, 1.0))
    scale = torch.tensor([1.0, 2.0])
    EnsembleAttack([MinimumNormAttack(norm=L2(scale)), PaperAttack(norm=L2(scale.double()))])


def test_images_to_start_from_reach_the_members() -> None:
    images = torch.rand(3, 2)
    ensemble = EnsembleAttack([Starting(), Liar()])
    moved = ensemble.starting_from(images)
    assert isinstance(moved, EnsembleAttack)
    assert isinstance(moved.attacks[0], Starting)
    assert moved.attacks[0].images is images
    assert isinstance(ensemble.attacks[0], Starting)
    assert ensemble.attacks[0].images is None


def test_accuracy_robustness_area() -> None:
    inputs, labels = build_batch(1, 12)
    model = build_convolutional(2)
    areas = [accuracy_robustness_area(model, (inputs, labels), attack=attack).area for attack in MEMBERS]
    together = accuracy_robustness_area(model, (inputs, labels), attack=EnsembleAttack(MEMBERS))
    assert together.area <= min(areas) + 1e-9


@pytest.mark.parametrize(
    ("attacks", "settings", "error", "message"),
    [
        ([], {}, InvalidInputError, "attacks: expected at least one attack object, got none"),
        (MEMBERS[0], {}, InvalidTypeError, "attacks: expected a list of attack objects, got <"),
        ("paper", {}, InvalidTypeError, "attacks: expected a list of attack objects, got 'paper'"),
        (["paper"], {}, InvalidTypeError, r"got a name; pass captum_lipschitz.create_attack\('paper'\)"),
        ([PaperAttack], {}, InvalidTypeError, "attacks: expected attack objects, got <class"),
        ([3], {}, InvalidTypeError, "attacks: expected attack objects, got 3"),
        (
            [MinimumNormAttack(), MinimumNormAttack(norm="linf")],
            {},
            InvalidInputError,
            r"norm: expected one for all attacks, RMSE\(\), got one with Linf\(\)",
        ),
        ([MinimumNormAttack()], {"norm": "l2"}, InvalidInputError, r"norm: expected one for all attacks, L2\(\), got"),
        (
            [MinimumNormAttack(norm=L2(2.0)), MinimumNormAttack(norm=L2(3.0))],
            {},
            InvalidInputError,
            "norm: expected one for all attacks",
        ),
        (
            [MinimumNormAttack(norm=L2(2.0)), MinimumNormAttack(norm=L2())],
            {},
            InvalidInputError,
            "norm: expected one for all attacks",
        ),
        (
            [MinimumNormAttack(bounds=(0, 1)), MinimumNormAttack()],
            {},
            InvalidInputError,
            r"bounds: expected the same for all attacks, Bounds\(lower=0.0, upper=1.0\), got one with None",
        ),
        ([MinimumNormAttack()], {"bounds": (0, 1)}, InvalidInputError, "bounds: expected the same for all attacks"),
    ],
)
def test_what_is_refused(attacks: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        EnsembleAttack(attacks, **settings)


def test_several_labels_of_an_image() -> None:
    inputs, _ = build_batch(1, 6)
    model = build_convolutional(2)
    labels = (model(inputs) > 0).long()
    ensemble = EnsembleAttack([MinimumNormAttack(steps=5), MinimumNormAttack()])
    result = ensemble(model, inputs, labels, "label_flips")
    alone = MinimumNormAttack()(model, inputs, labels, "label_flips")
    assert result.found.all()
    assert (result.distances <= alone.distances * (1 + 1e-9)).all()
