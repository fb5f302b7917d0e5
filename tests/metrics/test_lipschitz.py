"""local_lipschitz and margin_radius against singular values, closed forms and attacked distances."""

from __future__ import annotations

import json
import math
from collections.abc import Callable

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from oracles import minimal_distances
from strategies import Case, build_batch, build_convolutional, cases, linear_cases
from torch import Tensor, nn

from captum_lipschitz import (
    RMSE,
    RadiusCalibration,
    Reaches,
    accuracy_robustness_area,
    local_lipschitz,
    margin_radius,
    radius_calibration,
)
from captum_lipschitz.errors import DisconnectedModelError, InvalidInputError, InvalidTypeError, ModelOutputError


def _jacobians(model: nn.Module, inputs: Tensor) -> Tensor:
    """One image at a time, (N, C, features)."""
    return torch.stack(
        [
            torch.autograd.functional.jacobian(lambda x: model(x[None])[0], image).flatten(1)  # type: ignore[no-untyped-call]
            for image in inputs
        ]
    )


@given(linear_cases())
def test_of_a_linear_model_it_is_the_largest_singular_value(case: Case) -> None:
    assert isinstance(case.model, nn.Linear)
    exact = torch.linalg.matrix_norm(case.model.weight.detach(), ord=2).expand(len(case.inputs))
    found = local_lipschitz(case.model, case.inputs, iterations=2000)
    torch.testing.assert_close(found, exact, rtol=1e-4, atol=0)
    assert bool((found <= exact * (1 + 1e-12)).all())


@given(cases(), st.sampled_from(["l2", "rmse"]))
def test_of_networks_it_is_that_of_the_jacobian(case: Case, norm: str) -> None:
    exact = torch.linalg.matrix_norm(_jacobians(case.model, case.inputs), ord=2)
    factor = math.sqrt(50) if norm == "rmse" else 1.0
    found = local_lipschitz(case.model, case.inputs, norm=norm, iterations=2000)
    torch.testing.assert_close(found, factor * exact, rtol=1e-4, atol=0)


def test_of_two_layers_with_another_steepness_for_each_image() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(7, 9), nn.Tanh(), nn.Linear(9, 5)).double()
    inputs = torch.randn(6, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    first, last = model[0].weight.detach(), model[2].weight.detach()
    slopes = 1 - model[0](inputs).detach().tanh().square()
    exact = torch.stack([torch.linalg.matrix_norm(last @ torch.diag(s) @ first, ord=2) for s in slopes])
    assert exact.max() > 1.1 * exact.min()
    torch.testing.assert_close(local_lipschitz(model, inputs), exact, rtol=1e-5, atol=0)


@given(linear_cases())
def test_with_a_scale_it_is_that_of_the_scaled_jacobian(case: Case) -> None:
    scale = torch.arange(1, case.inputs.shape[1] + 1, dtype=torch.float64)
    weight = case.model.weight.detach()
    exact = torch.linalg.matrix_norm(weight * scale, ord=2) * math.sqrt(len(scale))
    found = local_lipschitz(case.model, case.inputs, norm=RMSE(scale), iterations=2000)
    torch.testing.assert_close(found, exact.expand(len(found)), rtol=1e-4, atol=0)


@given(cases(), st.sampled_from([("l2", 2.0, 1.0), ("rmse", 2.0, math.sqrt(50)), ("linf", 1.0, 1.0)]))
def test_with_labels_it_is_the_dual_size_of_the_margins_gradient(case: Case, norm: tuple[str, float, float]) -> None:
    name, dual, factor = norm
    jacobians, logits = _jacobians(case.model, case.inputs), case.model(case.inputs).detach()
    rows = torch.arange(len(logits))
    other = logits.scatter(1, case.labels[:, None], -math.inf).argmax(1)
    slope = jacobians[rows, case.labels] - jacobians[rows, other]
    found = local_lipschitz(case.model, case.inputs, case.labels, norm=name)
    torch.testing.assert_close(found, factor * slope.norm(p=dual, dim=1))
    margin = logits[rows, case.labels] - logits[rows, other]
    radius = margin_radius(case.model, case.inputs, case.labels, norm=name)
    torch.testing.assert_close(radius, margin.clamp(min=0) / found)


@given(linear_cases(), st.sampled_from([("l2", 2.0), ("linf", math.inf)]))
def test_of_two_linear_classes_the_radius_is_the_distance(case: Case, norm: tuple[str, float]) -> None:
    model = nn.Linear(case.inputs.shape[1], 2).double()
    model.weight.data, model.bias.data = case.model.weight.data[:2], case.model.bias.data[:2]
    labels = model(case.inputs).argmax(1)
    exact = minimal_distances(model, case.inputs, labels, norm[1])
    torch.testing.assert_close(margin_radius(model, case.inputs, labels, norm=norm[0]), exact)


@given(cases(), st.floats(1e-3, 1e3))
def test_the_radius_does_not_depend_on_the_logits_scale(case: Case, factor: float) -> None:
    plain = margin_radius(case.model, case.inputs, case.labels)
    torch.testing.assert_close(margin_radius(lambda x: factor * case.model(x), case.inputs, case.labels), plain)
    constant = local_lipschitz(lambda x: factor * case.model(x), case.inputs)
    torch.testing.assert_close(constant, factor * local_lipschitz(case.model, case.inputs), rtol=1e-4, atol=0)


def test_misclassified_images_have_no_radius_and_flat_ones_no_end() -> None:
    model, (inputs, _) = build_convolutional(1), build_batch(0, 6)
    right = model(inputs).argmax(1)
    wrong = (right + 1) % 4
    assert torch.equal(margin_radius(model, inputs, wrong), torch.zeros(6, dtype=torch.float64))
    assert bool((margin_radius(model, inputs, right) > 0).all())

    def flat(x: Tensor) -> Tensor:
        return torch.eye(4, dtype=x.dtype)[right] + 0 * model(x)

    assert bool(torch.isinf(margin_radius(flat, inputs, right)).all())
    assert torch.equal(local_lipschitz(flat, inputs), torch.zeros(6, dtype=torch.float64))


@given(cases(min_size=3))
def test_an_image_does_not_depend_on_its_neighbours(case: Case) -> None:
    whole = local_lipschitz(case.model, case.inputs)
    for row in range(len(whole)):
        alone = local_lipschitz(case.model, case.inputs[row : row + 1])
        torch.testing.assert_close(alone, whole[row : row + 1], rtol=1e-6, atol=0)


class _Once(torch.autograd.Function):
    """A square that refuses to be differentiated twice."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: torch.autograd.function.FunctionCtx, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return 2 * x * grad


def test_layers_that_are_differentiable_only_once() -> None:
    model, (inputs, _) = build_convolutional(1), build_batch(0, 4)
    expected = local_lipschitz(lambda x: model(x.square()), inputs)
    torch.testing.assert_close(local_lipschitz(lambda x: model(_Once.apply(x)), inputs), expected)


def test_the_infinity_norms_value_is_reached_by_some_sign_vector() -> None:
    model = nn.Linear(5, 3).double()
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0], dtype=torch.float64)] * 5)
    exact = (signs @ model.weight.detach().T).norm(dim=1).max()
    found = local_lipschitz(model, torch.zeros(1, 5, dtype=torch.float64), norm="linf")
    assert 0.5 * exact < found.item() <= exact * (1 + 1e-12)


@pytest.mark.parametrize("labelled", [False, True])
@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_leaves_no_trace(labelled: bool, error: BaseException | None) -> None:
    model, (inputs, labels) = build_convolutional(1), build_batch(0, 4)
    half_frozen(model)
    used = model if error is None else Breaking(model, 0, error).train()
    before = snapshot(used, inputs, labels)
    functions: list[Callable[[], Tensor]] = [
        lambda: local_lipschitz(used, inputs, labels if labelled else None),
        lambda: margin_radius(used, inputs, labels),
    ]
    for function in functions:
        if error is None:
            assert not function().requires_grad
        else:
            with pytest.raises(type(error)):
                function()
    assert_unchanged(before, snapshot(used, inputs, labels))


def test_the_same_seed_gives_the_same_bits_and_any_seed_the_same_answer() -> None:
    model, (inputs, _) = build_convolutional(1), build_batch(0, 4)
    first = local_lipschitz(model, inputs)
    assert torch.equal(first, local_lipschitz(model, inputs))
    other = local_lipschitz(model, inputs, generator=torch.Generator().manual_seed(9))
    torch.testing.assert_close(first, other, rtol=1e-5, atol=0)


INPUTS, LABELS = build_batch(0, 5)


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (lambda m: local_lipschitz(m, INPUTS, iterations=0), InvalidInputError, "iterations: expected at least 1"),
        (lambda m: local_lipschitz(m, INPUTS, norm="l0"), InvalidInputError, "norm: expected one of"),
        (lambda m: local_lipschitz(m, INPUTS, generator=3), InvalidTypeError, "generator: expected"),
        (lambda m: local_lipschitz(m, INPUTS, LABELS[:2]), InvalidInputError, "labels: expected one class per image"),
        (lambda m: local_lipschitz(m, INPUTS, LABELS + 4), InvalidInputError, r"0\.\.3"),
        (lambda m: local_lipschitz(m, INPUTS * math.nan), InvalidInputError, "finite"),
        (lambda m: local_lipschitz(m, (255 * INPUTS).byte()), InvalidTypeError, "floating point"),
        (lambda m: local_lipschitz(lambda x: m(x).detach(), INPUTS), DisconnectedModelError, "does not depend"),
        (lambda m: local_lipschitz(lambda x: m(x) * math.nan, INPUTS), ModelOutputError, "NaN"),
        (lambda m: margin_radius(m, INPUTS, LABELS + 4), InvalidInputError, r"0\.\.3"),
        (lambda m: margin_radius(m, INPUTS, LABELS, criterion="btr"), InvalidInputError, "criterion: expected"),
        (lambda m: margin_radius(lambda x: m(x).detach(), INPUTS, LABELS), DisconnectedModelError, "does not depend"),
        (lambda _: radius_calibration(torch.ones(3), torch.ones(2)), InvalidInputError, "distances: expected one"),
        (lambda _: radius_calibration(torch.zeros(3), torch.ones(3)), InvalidInputError, "finite and above 0"),
        (lambda _: radius_calibration(-torch.ones(3), torch.ones(3)), InvalidInputError, "radii: expected sizes"),
        (lambda _: radius_calibration([1.0], torch.ones(1)), InvalidTypeError, "radii: expected a tensor, got list"),
    ],
)
def test_bad_input(use: Callable[[nn.Module], object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        use(build_convolutional(1))


def test_equal_radii_share_the_mean_of_their_ranks() -> None:
    """Ranks 1.5, 1.5, 3, 4 and 1, 2.5, 2.5, 4: a covariance of 3.75 and variances of 4.5."""
    found = radius_calibration(torch.tensor([1.0, 1.0, 2.0, 4.0]), torch.tensor([1.0, 2.0, 2.0, 3.0]))
    assert found.rank_correlation == pytest.approx(3.75 / 4.5)


def test_calibration_of_known_figures() -> None:
    radii = torch.tensor([1.0, 4.0, 9.0, 0.0, 5.0, math.inf])
    found = radius_calibration(radii, torch.tensor([1.0, 2.0, 3.0, 2.0, math.inf, 1.0]))
    assert found == RadiusCalibration(pytest.approx(6 ** (1 / 3)), (1.1, 2.0, 2.9), pytest.approx(1.0), 3, 3)
    assert radius_calibration(torch.tensor([1.0, 2.0, 2.0]), torch.tensor([3.0, 2.0, 1.0])).rank_correlation == (
        pytest.approx(-math.sqrt(3) / 2)
    )
    assert "rank correlation 1.00, 3 images" in str(found)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["left_out"] == 3
    one = radius_calibration(torch.ones(1), torch.ones(1))
    assert one.to_dict()["rank_correlation"] is None


def test_the_radius_ranks_a_networks_images_as_an_attack_does() -> None:
    model, (inputs, _) = build_convolutional(1), build_batch(0, 60)
    labels = model(inputs).argmax(1)
    result = accuracy_robustness_area(model, (inputs, labels), doubts="off")
    found = radius_calibration(margin_radius(model, inputs, labels), result.distances)
    assert found.rank_correlation > 0.9
    assert 0.8 < found.ratio < 1.5
    assert found.count == 60


def test_inference_mode_changes_nothing() -> None:
    """Lightning validates in it."""
    inputs, labels = build_batch(0, 6)
    model = build_convolutional(1)
    expected = margin_radius(model, inputs, labels), local_lipschitz(model, inputs, labels)
    toward = margin_radius(model, inputs, labels, criterion=Reaches(2))
    with torch.inference_mode():
        inputs, labels = inputs.clone(), labels.clone()
        assert labels.is_inference()
        found = margin_radius(model, inputs, labels), local_lipschitz(model, inputs, labels)
        assert torch.equal(margin_radius(model, inputs, labels, criterion=Reaches(torch.tensor(2))), toward)
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)
