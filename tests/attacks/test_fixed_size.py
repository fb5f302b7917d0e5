"""An attack of given size made minimal: against closed forms, and whatever the attack does."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from oracles import minimal_distances
from strategies import Case, build_batch, build_convolutional, linear_cases
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import FixedSizeAttack, MinimumNormAttack, accuracy_robustness_area
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


def fast_gradient(model: Model, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """One L2 step along the gradient of the margin."""
    leaf = inputs.clone().requires_grad_()
    logits = model(leaf)
    own = logits.gather(1, labels[:, None]).squeeze(1)
    other = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    (other - own).sum().backward()
    assert leaf.grad is not None
    slope = leaf.grad.flatten(1)
    step = slope / slope.norm(dim=1, keepdim=True) * sizes[:, None].to(inputs)
    return inputs + step.reshape(inputs.shape)


def sign_step(model: Model, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """FGSM of a tool that knows one size only."""
    leaf = inputs.clone().requires_grad_()
    F.cross_entropy(model(leaf), labels).backward()
    assert leaf.grad is not None
    return inputs + float(sizes) * leaf.grad.sign()


def random_start(model: Model, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """A sign step from a random image near by, drawn from the global random state."""
    scale = sizes.reshape(-1, *[1] * (inputs.dim() - 1)).to(inputs)
    leaf = (inputs + scale * (torch.rand_like(inputs) - 0.5)).requires_grad_()
    F.cross_entropy(model(leaf), labels, reduction="sum").backward()
    assert leaf.grad is not None
    return inputs + (leaf.detach() + scale * leaf.grad.sign() - inputs).clamp(-scale, scale)


def two_classes(case: Case) -> tuple[nn.Linear, Tensor]:
    assert isinstance(case.model, nn.Linear)
    model = nn.Linear(case.model.in_features, 2).double()
    with torch.no_grad():
        model.weight.copy_(case.model.weight[:2])
        return model, model(case.inputs).argmax(1)


@given(linear_cases(), st.sampled_from([0.1, 0.01, 0.001]))
def test_two_linear_classes_have_a_closed_form(case: Case, tolerance: float) -> None:
    model, labels = two_classes(case)
    exact = minimal_distances(model, case.inputs, labels, 2)
    result = FixedSizeAttack(fast_gradient, tolerance=tolerance, norm="l2")(model, case.inputs, labels)
    assert result.found.all()
    assert (result.distances >= exact * (1 - 1e-9)).all()
    assert (result.distances <= exact * (1 + 1.1 * tolerance) + 1e-9).all()


@given(linear_cases())
def test_one_size_for_a_whole_batch(case: Case) -> None:
    model, labels = two_classes(case)
    exact = minimal_distances(model, case.inputs, labels, math.inf)
    attack = FixedSizeAttack(sign_step, one_size=True, norm="linf")
    torch.testing.assert_close(attack(model, case.inputs, labels).distances, exact, rtol=0.011, atol=0)


@pytest.mark.parametrize("one_size", [False, True])
def test_each_image_is_charged_for_the_runs_that_it_took_part_in(one_size: bool) -> None:
    inputs, labels = build_batch(1, 12)
    sizes: list[Tensor] = []

    def counting(model: Model, inputs: Tensor, labels: Tensor, given: Tensor) -> Tensor:
        sizes.append(given)
        return fast_gradient(model, inputs, labels, given)

    attack = FixedSizeAttack(counting, one_size=one_size, norm="l2", bounds=(0, 1))
    result = attack(build_convolutional(2), inputs, labels)
    open_rows = result.distances > 0
    spent = result.gradient_evaluations[open_rows]
    assert int(spent.sum()) == sum(len(given) for given in sizes) + int(open_rows.sum())
    assert len(spent.unique()) > 1  # images that are done leave the batch
    assert {len(given) for given in sizes} == {1} if one_size else max(len(given) for given in sizes) > 1


def test_an_expanded_or_partial_batch_is_shared_out() -> None:
    inputs, labels = build_batch(1, 4)
    model = build_convolutional(2)
    labels = model(inputs).argmax(1)

    def three_copies_of_one(model: Model, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
        fast_gradient(model, inputs[:1].expand(3, *inputs.shape[1:]), labels[:1].expand(3), sizes[:1].expand(3))
        return inputs

    result = FixedSizeAttack(three_copies_of_one, rounds=2)(model, inputs, labels)
    assert result.gradient_evaluations.tolist() == [3, 3, 3, 3]  # 2 runs of ceil(3 / 4), and the linearisation


@pytest.mark.parametrize("bounds", [None, (0, 1)])
def test_an_attack_that_does_nothing_finds_nothing_and_ends(bounds: tuple[float, float] | None) -> None:
    inputs, labels = build_batch(1, 6)
    runs = 0

    def idle(model: Model, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
        nonlocal runs
        runs += 1
        return inputs

    model = build_convolutional(2)
    labels = model(inputs).argmax(1)
    result = FixedSizeAttack(idle, bounds=bounds)(model, inputs, labels)
    assert not result.found.any()
    assert torch.isinf(result.distances).all()
    assert runs <= 20


def test_a_success_counts_with_the_size_that_it_has() -> None:
    """An attack that goes ten times as far as it may, and one that ignores its size altogether."""
    model = nn.Linear(4, 2).double()
    inputs = torch.randn(6, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = model(inputs).argmax(1)
    exact = minimal_distances(model, inputs, labels, 2)
    too_far = FixedSizeAttack(lambda m, x, y, s: fast_gradient(m, x, y, 10 * s), norm="l2")(model, inputs, labels)
    torch.testing.assert_close(too_far.distances, exact, rtol=0.02, atol=0)
    away = FixedSizeAttack(lambda m, x, y, s: fast_gradient(m, x, y, 0 * s + 50), norm="l2")(model, inputs, labels)
    torch.testing.assert_close(away.distances, torch.full_like(exact, 50.0))


def test_images_that_are_not_finite_are_failures() -> None:
    inputs, labels = build_batch(1, 6)
    result = FixedSizeAttack(lambda _m, x, _y, _s: x * torch.nan)(build_convolutional(2), inputs, labels)
    assert not result.found[result.gradient_evaluations > 0].any()
    assert torch.isfinite(result.adversarial_inputs).all()


def test_answers_are_clamped_to_the_bounds_and_limited_by_the_largest_size() -> None:
    inputs, _ = build_batch(1, 10)
    model = build_convolutional(2)
    labels = model(inputs).argmax(1)  # all decided rightly: torch's versions draw differently
    boxed = FixedSizeAttack(fast_gradient, norm="l2", bounds=(0, 1))(model, inputs, labels)
    assert boxed.adversarial_inputs.min() >= 0
    assert boxed.adversarial_inputs.max() <= 1
    limit = float(boxed.distances[boxed.distances > 0].median())
    limited = FixedSizeAttack(fast_gradient, largest=limit, norm="l2", bounds=(0, 1))(model, inputs, labels)
    assert (limited.distances[limited.found] <= limit * (1 + 1e-9)).all()
    assert 0 < int(limited.found.sum()) < len(inputs)


def test_random_attacks_repeat_and_one_by_one_do_not_see_their_neighbours() -> None:
    inputs, labels = build_batch(1, 8)
    model = build_convolutional(2)
    state = torch.get_rng_state()
    together = FixedSizeAttack(random_start, norm="linf")
    assert torch.equal(together(model, inputs, labels).distances, together(model, inputs, labels).distances)
    alone = FixedSizeAttack(random_start, one_size=True, norm="linf")
    whole = alone(model, inputs, labels)
    order = torch.arange(7, -1, -1)
    torch.testing.assert_close(alone(model, inputs[order], labels[order]).distances[order], whole.distances)
    other = FixedSizeAttack(random_start, one_size=True, seed=1, norm="linf")(model, inputs, labels)
    assert not torch.equal(other.distances, whole.distances)
    assert torch.equal(torch.get_rng_state(), state)


def test_backward_of_the_attack_leaves_nothing_in_the_parameters() -> None:
    inputs, labels = build_batch(1, 5)
    model = build_convolutional(2)
    FixedSizeAttack(fast_gradient, norm="l2")(model, inputs, labels)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_accuracy_robustness_area_is_an_upper_bound_of_a_stronger_attack_s() -> None:
    inputs, labels = build_batch(1, 20)
    model = build_convolutional(2)
    sized = FixedSizeAttack(fast_gradient, norm="l2")
    weak = accuracy_robustness_area(model, (inputs, labels), attack=sized)
    strong = accuracy_robustness_area(model, (inputs, labels), attack=MinimumNormAttack())
    assert weak.area >= 0.999 * strong.area


@pytest.mark.parametrize(
    ("attack", "settings", "error", "message"),
    [
        (fast_gradient, {"tolerance": 0}, InvalidInputError, r"tolerance: expected a share in \(0, 1\), got 0"),
        (fast_gradient, {"tolerance": 1.0}, InvalidInputError, r"tolerance: expected a share in \(0, 1\), got 1.0"),
        (fast_gradient, {"rounds": 0}, InvalidInputError, "rounds: expected at least 1, got 0"),
        (fast_gradient, {"largest": -1.0}, InvalidInputError, "largest: expected a positive size, or None, got -1.0"),
        (fast_gradient, {"largest": math.inf}, InvalidInputError, "largest: expected a positive size, or None"),
        (fast_gradient, {"norm": "l1"}, InvalidInputError, "norm: expected one of"),
        ("PGD", {}, InvalidTypeError, r"attack: expected attack\(model, inputs, labels, sizes\).*, got 'PGD'"),
        (MinimumNormAttack, {}, InvalidTypeError, r"attack: expected attack\(model, inputs, labels, sizes\)"),
        (MinimumNormAttack(), {}, InvalidTypeError, "got MinimumNormAttack, which chooses sizes itself"),
    ],
)
def test_what_is_refused(attack: Any, settings: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        FixedSizeAttack(attack, **settings)


@pytest.mark.parametrize(("answer", "got"), [(lambda _: None, "NoneType"), (lambda x: x[:1, :1], r"\(1, 1, 5, 5\)")])
def test_an_attack_that_returns_something_else(answer: Any, got: str) -> None:
    inputs, labels = build_batch(1, 5)
    with pytest.raises(InvalidInputError, match=rf"attack: expected adversarial images of shape .* got {got}"):
        FixedSizeAttack(lambda _m, x, _y, _s: answer(x))(build_convolutional(2), inputs, labels)
