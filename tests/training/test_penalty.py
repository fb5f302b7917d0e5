"""The penalty and its parameter gradients against a slow, obvious re-implementation in float64."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from contracts import assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from oracles import penalty as slow_penalty
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU, lipschitz_penalty
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.training import PenaltyDraws, draw
from captum_lipschitz.training.penalty import (
    Positions,
    check_penalty_arguments,
    draw_positions,
    lead,
    leads,
    look_at_values,
    slope_power,
)


def _network(seed: int, *, train: bool, normalised: bool) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1),
            nn.BatchNorm2d(5) if normalised else nn.Identity(),
            HalfHuberReLU(),
            nn.Flatten(),
            nn.Linear(125, 4),
        ).double()
    return model.train(train)


@given(
    seeds,
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([1, 2, 3.5]),
    st.booleans(),
    st.booleans(),
)
def test_penalty_and_parameter_gradient(seed: int, zeta: float, power: float, train: bool, normalised: bool) -> None:
    inputs, labels = build_batch(seed, 4)
    draws = draw(4, 4, tandem_probability=zeta, generator=torch.Generator().manual_seed(seed))
    models = [_network(seed, train=train, normalised=normalised) for _ in range(2)]
    leaf = inputs.clone().requires_grad_()
    fast = lipschitz_penalty(models[0](leaf), leaf, labels, draws=draws, power=power)
    slow = slow_penalty(models[1], inputs, labels, draws.classes, draws.tandem, power)
    torch.testing.assert_close(fast, slow, rtol=1e-10, atol=1e-10)
    gradients = [
        torch.autograd.grad(p, list(m.parameters()), allow_unused=True, materialize_grads=True)
        for p, m in zip((fast, slow), models, strict=True)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-10)
    assert any(g.abs().max() > 0 for g in gradients[0])


@given(seeds)
def test_without_batch_statistics_each_image_stands_alone(seed: int) -> None:
    inputs, labels = build_batch(seed, 4)
    model = build_convolutional(seed)
    draws = draw(4, 4, tandem_probability=0.5, generator=torch.Generator().manual_seed(seed))

    def of(rows: Tensor) -> Tensor:
        leaf = inputs[rows].clone().requires_grad_()
        return lipschitz_penalty(
            model(leaf), leaf, labels[rows], draws=PenaltyDraws(draws.classes[rows], draws.tandem[rows])
        )

    alone = torch.stack([of(torch.tensor([i])) for i in range(4)])
    torch.testing.assert_close(of(torch.arange(4)), alone.mean(), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(of(torch.tensor([2, 0, 3, 1])), alone.mean(), rtol=1e-10, atol=1e-12)


def test_the_expectation_is_the_jacobians_squared_norm() -> None:
    inputs, labels = build_batch(0, 3)
    model = build_convolutional(1)
    per_class = []
    for c in range(4):
        leaf = inputs.clone().requires_grad_()
        draws = PenaltyDraws(torch.full((3,), c), torch.zeros(3, dtype=torch.bool))
        per_class.append(lipschitz_penalty(model(leaf), leaf, labels, draws=draws))
    jacobians = torch.stack([torch.autograd.functional.jacobian(model, x[None]).flatten() for x in inputs])
    expected = jacobians.square().sum(1).mean() / (4 * 50)
    torch.testing.assert_close(torch.stack(per_class).mean(), expected)


def test_draws_are_uniform_and_tandem_as_often_as_asked() -> None:
    draws = draw(40_000, 5, tandem_probability=0.2, generator=torch.Generator().manual_seed(0))
    assert draws.tandem.double().mean().item() == pytest.approx(0.2, abs=0.01)
    torch.testing.assert_close(draws.classes.bincount() / 40_000, torch.full((5,), 0.2), atol=0.01, rtol=0)
    again = draw(40_000, 5, tandem_probability=0.2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(draws.classes, again.classes)


def test_leaves_no_trace() -> None:
    inputs, labels = build_batch(0, 4)
    model = half_frozen(build_convolutional(1))
    inputs.requires_grad_()
    logits = model(inputs)
    before = snapshot(model, inputs, labels)
    draws = draw(4, 4, tandem_probability=0.5, generator=torch.Generator())
    lipschitz_penalty(logits, inputs, labels, draws=draws)
    assert_unchanged(before, snapshot(model, inputs, labels))
    with pytest.raises(InvalidInputError, match="power: expected a positive exponent, got 0"):
        lipschitz_penalty(logits, inputs, labels, draws=draws, power=0)
    assert_unchanged(before, snapshot(model, inputs, labels))


_ALL_TANDEM = PenaltyDraws(torch.zeros(4, dtype=torch.long), torch.ones(4, dtype=torch.bool))


def _tandem(labels: Tensor, *, multi_label: bool = False) -> Tensor:
    inputs, _ = build_batch(0, 4)
    leaf = inputs.requires_grad_()
    logits = build_convolutional(1)(leaf)
    return lipschitz_penalty(logits, leaf, labels, draws=_ALL_TANDEM, multi_label=multi_label)


def _by_hand(scalars: Callable[[Tensor], Tensor]) -> Tensor:
    """The penalty of scalars written out: ``logits (4, 4) -> (4,)``."""
    inputs, _ = build_batch(0, 4)
    leaf = inputs.requires_grad_()
    (slopes,) = torch.autograd.grad(scalars(build_convolutional(1)(leaf)).sum(), leaf)
    return slopes.square().mean()


def test_of_soft_labels_the_most_probable_class_is_the_true_one() -> None:
    classes = torch.tensor([2, 0, 3, 1])
    hard = _tandem(classes)
    assert hard > 0
    smoothed = 0.9 * nn.functional.one_hot(classes, 4).double() + 0.1 / 4
    torch.testing.assert_close(_tandem(smoothed), hard)
    mixed = 0.7 * nn.functional.one_hot(classes, 4).double() + 0.3 * nn.functional.one_hot(classes.flip(0), 4)
    torch.testing.assert_close(_tandem(mixed), hard)
    half = torch.tensor([[0.0, 0.5, 0.5, 0.0]] * 4).double()
    torch.testing.assert_close(_tandem(half), _tandem(torch.ones(4, dtype=torch.long)))


def test_of_several_labels_the_weakest_there_is_held_against_the_strongest_absent() -> None:
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 1, -1], [0, 0, 0, 0], [1, -1, 1, 1]])

    def scalars(z: Tensor) -> Tensor:
        first = torch.minimum(z[0, 0], z[0, 2]) - torch.maximum(z[0, 1], z[0, 3])
        second = z[1, 2] - torch.maximum(z[1, 0], z[1, 1])  # the last is unknown
        return torch.stack([first, second, z[2, 0], z[3, 0]])  # none there, none absent: the drawn logit

    expected = _by_hand(scalars)
    torch.testing.assert_close(_tandem(labels, multi_label=True), expected)
    torch.testing.assert_close(_tandem(labels.double(), multi_label=True), expected)


def test_of_several_labels_parameter_gradients_stay_finite() -> None:
    labels = torch.tensor([[1, 0, 1, 0], [0, 0, 1, -1], [0, 0, 0, 0], [1, -1, 1, 1]])
    inputs, _ = build_batch(0, 4)
    leaf, model = inputs.requires_grad_(), build_convolutional(1)
    lipschitz_penalty(model(leaf), leaf, labels, draws=_ALL_TANDEM, multi_label=True).backward()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert any(bool(gradient.any()) for gradient in gradients)
    assert all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


@pytest.mark.parametrize(
    ("labels", "multi_label", "error", "message"),
    [
        (torch.ones(4, 4).double(), False, InvalidInputError, "sum to 1; for images with several labels set multi_lab"),
        (torch.ones(4, 4).long(), False, InvalidTypeError, r"labels: expected integer classes \(N,\) or floating"),
        (torch.ones(4, 3).double(), False, InvalidInputError, r"class probabilities of shape \(4, 4\), got \(4, 3\)"),
        (torch.tensor([[2.0, -1.0, 0.0, 0.0]] * 4), False, InvalidInputError, "rows of at least 0 that sum to 1"),
        (torch.ones(4, 3), True, InvalidInputError, r"shape \(4, 4\), got \(4, 3\)"),
        (torch.full((4, 4), 0.5), True, InvalidInputError, "expected 0, 1 or -1"),
        (torch.ones(4).long(), True, InvalidInputError, r"shape \(4, 4\), got \(4,\)"),
    ],
)
def test_labels_of_another_kind_are_refused(
    labels: Tensor, multi_label: bool, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        _tandem(labels, multi_label=multi_label)


def test_draws_made_before_the_classes_are_known() -> None:
    positions = torch.tensor([0.0, 0.19, 0.21, 0.5, 1 - 2**-24])
    tandem = torch.tensor([True, False, True, False, False])
    draws = Positions(positions, tandem).of(5)
    assert draws.classes.tolist() == [0, 0, 1, 2, 4]  # never one beyond the last
    assert draws.classes.dtype == torch.int64
    assert draws.tandem is tandem
    assert Positions(torch.ones(1), tandem[:1]).of(5).classes.tolist() == [4]
    for zeta, count in ((0.0, 0), (1.0, 50)):
        drawn = draw_positions(50, tandem_probability=zeta, generator=torch.Generator().manual_seed(0))
        assert int(drawn.tandem.sum()) == count
        assert 0 <= drawn.positions.min() < drawn.positions.max() < 1


def test_without_a_generator_draws_are_the_global_ones() -> None:
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(draw(20, 4, tandem_probability=0.5, generator=None).classes)
    assert torch.equal(*found)
    assert draw_positions(2, tandem_probability=0.5, generator=None, device="meta").positions.device.type == "meta"


def _linear(power: float = 2, **settings: object) -> Tensor:
    """The penalty of three logits (2x, -3x, 4x) of one feature, all drawn."""
    inputs = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    logits = inputs * torch.tensor([[2.0, -3.0, 4.0]])
    draws = PenaltyDraws(torch.arange(3), torch.zeros(3, dtype=torch.bool))
    return lipschitz_penalty(logits, inputs, torch.zeros(3).long(), draws=draws, power=power, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("power", "expected"), [(1, 3.0), (2, 29 / 3), (3, 33.0), (4, 353 / 3), (0.5, (2**0.5 + 3**0.5 + 2) / 3)]
)
def test_powers_by_hand(power: float, expected: float) -> None:
    assert _linear(power).item() == pytest.approx(expected)
    assert _linear().item() == pytest.approx(29 / 3)  # the square, where nothing is said


def test_two_classes_are_enough_and_one_is_not() -> None:
    inputs = torch.ones(2, 1, dtype=torch.float64, requires_grad=True)
    draws, labels = PenaltyDraws(torch.arange(2), torch.zeros(2, dtype=torch.bool)), torch.zeros(2).long()
    penalty = lipschitz_penalty(inputs * torch.tensor([[2.0, -3.0]]), inputs, labels, draws=draws)
    assert penalty.item() == pytest.approx((4 + 9) / 2)
    with pytest.raises(ModelOutputError):
        lipschitz_penalty(inputs * 2, inputs, labels, draws=draws)


def test_slopes_in_half_precision_are_squared_in_single() -> None:
    inputs = torch.ones(2, 1, dtype=torch.float16, requires_grad=True)
    penalty = slope_power((inputs * 2.0**-12).sum(1), inputs, 2)
    assert penalty.dtype == torch.float32
    assert penalty.item() == 2.0**-24  # 0 in half precision


@pytest.mark.parametrize("classes", [torch.tensor([0, 1, 3]), torch.tensor([0, -1, 2]), torch.tensor([0, 1])])
def test_draws_that_do_not_fit_are_refused(classes: Tensor) -> None:
    inputs = torch.ones(3, 1, requires_grad=True)
    draws = PenaltyDraws(classes, torch.zeros(3, dtype=torch.bool))
    with pytest.raises(InvalidInputError, match=r"draws\.classes"):
        lipschitz_penalty(inputs.expand(3, 3) * 1.0, inputs, torch.zeros(3).long(), draws=draws)


def test_inputs_logits_and_power_are_checked() -> None:
    inputs = torch.ones(2, 3, requires_grad=True)
    labels, draws = torch.zeros(2).long(), PenaltyDraws(torch.zeros(2).long(), torch.zeros(2, dtype=torch.bool))

    def refused(error: type[Exception], message: str, logits: Tensor, given: Tensor, **settings: float) -> None:
        with pytest.raises(error, match=message):
            lipschitz_penalty(logits, given, labels, draws=draws, **settings)  # type: ignore[arg-type]

    refused(InvalidInputError, "power: expected a positive", 1 * inputs, inputs, power=-1)
    refused(InvalidInputError, "inputs: expected finite", 1 * inputs, torch.full((2, 3), torch.nan, requires_grad=True))
    refused(InvalidInputError, "inputs: expected requires_grad", 1 * inputs, inputs.detach())
    refused(ModelOutputError, "at least two classes", inputs[:, :1] * 1, inputs)
    refused(ModelOutputError, "finite logits", inputs / 0, inputs)
    refused(ModelOutputError, "got one", inputs[:, :0] * 1, inputs, multi_label=True)
    one = lipschitz_penalty(inputs[:, :1] * 3, inputs, labels[:, None], draws=draws, multi_label=True)
    assert one.item() == pytest.approx(9 / 3)  # a single output, where images have several labels or none


def test_class_probabilities_may_be_rounded_as_half_precision_does() -> None:
    rounded = torch.tensor([[0.3, 0.3, 0.2, 0.195]] * 4)
    torch.testing.assert_close(_tandem(rounded), _tandem(torch.zeros(4).long()))
    with pytest.raises(InvalidInputError, match="sum to 1"):
        _tandem(torch.tensor([[0.3, 0.3, 0.2, 0.1]] * 4))


def test_values_are_not_looked_at_where_that_would_wait_for_the_device() -> None:
    assert look_at_values(torch.zeros(1))
    assert not look_at_values(torch.zeros(1, device="meta"))
    assert not look_at_values([0.0])
    inputs = torch.ones(2, 3, device="meta", requires_grad=True)
    logits = inputs * 2
    whole = torch.ones(2, 3, device="meta")

    def checked(labels: object, *, multi_label: bool) -> Tensor:
        return check_penalty_arguments(logits, inputs, labels, power=2, multi_label=multi_label)  # type: ignore[arg-type]

    assert checked(whole, multi_label=True) is whole
    assert checked(whole, multi_label=False).shape == (2,)
    for wrong in (torch.ones(2, 2, device="meta"), [[1, 0, 1]] * 2):
        with pytest.raises(InvalidInputError, match=r"labels: expected one row of labels per image, shape \(2, 3\)"):
            checked(wrong, multi_label=True)


def test_what_a_tandem_draw_differentiates() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 4.0], [1.0, 2.0, 3.0]])
    otherwise = torch.tensor([7.0, 8.0, 9.0])
    assert lead(logits, torch.tensor([0, 2, 0]), otherwise).tolist() == [1.0, -1.0, -2.0]
    sets = torch.tensor([[1, 0, 1], [0, -1, 1], [0, 0, 0]])
    assert lead(logits, sets, otherwise).tolist() == [1.0, 4.0, 9.0]
    assert leads(logits, sets).tolist() == [1.0, 1.0, 0.0]
    assert leads(logits, torch.tensor([[1, 1, -1], [1, 0, 0], [-1, -1, -1]])).tolist() == [0.0, 1.0, 0.0]
    assert leads(logits.double(), torch.tensor([0, 1, 2])).dtype == torch.float64
    assert leads(logits, torch.tensor([0, 1, 2])).tolist() == [1.0, 1.0, 1.0]
