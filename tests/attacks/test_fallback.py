"""Where gradients lead nowhere: the straight way to an image that meets the criterion already."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_lipschitz import MinimumNormAttack, Misclassified
from captum_lipschitz.attacks import Problem
from captum_lipschitz.attacks.fallback import nearest_solved
from captum_lipschitz.geometry import L2, Linf


def _two(decision: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A model of two classes; a gradient that is connected and zero everywhere."""

    def model(x: Tensor) -> Tensor:
        second = decision(x.flatten(1).sum(1)) + 0 * x.flatten(1).sum(1)
        return torch.stack([-second, second], 1)

    return model


MODELS = {
    "threshold": _two(lambda total: torch.where(total > 2.5, 1.0, -1.0).to(total)),
    "sign": _two(lambda total: (total - 2.5).sign()),
    "staircase": _two(lambda total: (2 * total).floor() - 4.5),  # from 2.5 on at least 0.5
}
EFFORTS = ["fast", "standard", "thorough"]


def _case(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    return torch.tensor([[[0.25, 0.375], [0.5, 0.5]], [[0.5, 0.5], [0.5, 0.5]]], dtype=dtype), torch.tensor([0, 0])


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("effort", EFFORTS)
def test_zero_gradients_are_solved_toward_the_nearest_starting_image(name: str, effort: str) -> None:
    inputs, labels = _case()
    # The first is right still, and so are negatives; the third is the nearest of those that meet the criterion.
    others = torch.stack([torch.full((2, 2), 0.6), torch.ones(2, 2), torch.tensor([[0.75, 0.75], [0.6, 0.6]])]).double()
    attack = MinimumNormAttack(effort=effort, norm="l2", bounds=(0, 1), starting_images=others)  # type: ignore[arg-type]
    result = attack(MODELS[name], inputs, labels)
    way = others[2] - inputs
    share = (2.5 - inputs.flatten(1).sum(1)) / way.flatten(1).sum(1)
    exact = share * way.flatten(1).norm(dim=1)
    assert result.found.all()
    torch.testing.assert_close(result.distances, exact, rtol=1e-5, atol=0)
    assert ((result.adversarial_inputs >= 0) & (result.adversarial_inputs <= 1)).all()
    assert (MODELS[name](result.adversarial_inputs).argmax(1) == 1).all()
    handed_over = MinimumNormAttack(effort=effort, norm="l2", bounds=(0, 1)).starting_from(others)  # type: ignore[arg-type]
    assert torch.equal(handed_over(MODELS[name], inputs, labels).distances, result.distances)


@pytest.mark.parametrize("effort", EFFORTS)
def test_without_starting_images_the_negative_and_flat_images_serve(effort: str) -> None:
    inputs, labels = _case()
    inputs[0] = torch.tensor([[0.0, 0.0], [0.25, 0.25]])  # the negative sums to 3.5, and is nearer than all white
    result = MinimumNormAttack(effort=effort, norm="l2", bounds=(0, 1))(MODELS["sign"], inputs, labels)  # type: ignore[arg-type]
    assert result.found.all()
    ends = torch.stack([1 - inputs[0], torch.ones(2, 2, dtype=torch.float64)])
    way = ends - inputs
    exact = (2.5 - inputs.flatten(1).sum(1)) / way.flatten(1).sum(1) * way.flatten(1).norm(dim=1)
    torch.testing.assert_close(result.distances, exact, rtol=1e-5, atol=0)


def test_where_no_image_meets_the_criterion_nothing_is_found() -> None:
    inputs, labels = _case()
    never = _two(lambda total: -torch.ones_like(total))
    result = MinimumNormAttack(bounds=(0, 1), starting_images=torch.ones(1, 2, 2))(never, inputs, labels)
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert torch.equal(result.adversarial_inputs, inputs)


@pytest.mark.parametrize("norm", [L2(), Linf()])
def test_nearest_solved_is_nearest_in_the_norm_and_on_the_boundary(norm: L2 | Linf) -> None:
    inputs = torch.zeros(1, 4, dtype=torch.float64)
    # In L2 the first is nearer (0.75 against 0.8); in Linf the second (0.4 against 0.75).
    images = torch.tensor([[0.75, 0.0, 0.0, 0.0], [0.4, 0.4, 0.4, 0.4]], dtype=torch.float64)
    model = _two(lambda total: (total - 0.5).sign())
    problem = Problem(model, inputs, torch.tensor([0]), Misclassified())
    delta, found = nearest_solved(problem, images, norm)
    nearest = images[0 if isinstance(norm, L2) else 1]
    assert found.tolist() == [True]
    torch.testing.assert_close(delta[0], nearest * 0.5 / nearest.sum(), rtol=1e-5, atol=0)
    assert (problem.value(delta) <= 0).all()


def test_nearest_solved_says_where_there_is_none_and_rows_are_independent() -> None:
    inputs = torch.stack([torch.zeros(4), torch.full((4,), 0.4)]).double()
    problem = Problem(MODELS["sign"], inputs, torch.tensor([0, 0]), Misclassified())
    # Unbounded and without images: a flat image, mirrored or levelled, is itself.
    delta, found = nearest_solved(problem, None, L2())
    assert found.tolist() == [False, False]
    assert (delta == 0).all()
    image = torch.full((1, 4), 0.8, dtype=torch.float64)
    both, found = nearest_solved(problem, image, L2())
    assert found.all()
    for i in range(2):
        alone, _ = nearest_solved(problem.rows(torch.tensor([i])), image, L2())
        assert torch.equal(alone[0], both[i])


def test_a_search_that_has_a_gradient_makes_no_use_of_starting_images() -> None:
    model = torch.nn.Linear(4, 3).double()
    inputs = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    labels = model(inputs).argmax(1)
    plain, helped = (MinimumNormAttack(starting_images=images)(model, inputs, labels) for images in (None, inputs))
    assert torch.equal(plain.distances, helped.distances)
    assert plain.distances.max() < math.inf
