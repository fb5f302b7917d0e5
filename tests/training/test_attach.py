"""attach_regularizer: the same gradients as the explicit loss, or an error."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, seeds
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, HalfHuberReLU, LipschitzRegularizer, attach_regularizer
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnsupportedLossError
from captum_lipschitz.training import read_cross_entropy


def _network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(2, 5, 3, padding=1), nn.BatchNorm2d(5), HalfHuberReLU(), nn.Flatten(), nn.Linear(125, 4)
        ).double()


def _regularizer(every: int = 1) -> LipschitzRegularizer:
    strength = AdaptiveStrength(target_loss=2.0, initial=30.0)
    return LipschitzRegularizer(strength=strength, every=every, generator=torch.Generator().manual_seed(3))


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


@given(seeds, st.sampled_from([1.0, 0.25, 4096.0]), st.sampled_from([1, 2]))
def test_the_gradients_are_those_of_the_explicit_loss(seed: int, scale: float, every: int) -> None:
    explicit, attached = _network(seed), _network(seed)
    regularizer = _regularizer(every)
    handle = attach_regularizer(attached, _regularizer(every))
    for step in range(3):  # gradients accumulate over the steps
        inputs, labels = build_batch(seed + step, 6)
        leaf = inputs.clone().requires_grad_()
        logits = explicit(leaf)
        output = regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))
        (scale * output.loss).backward()
        (scale * F.cross_entropy(attached(inputs), labels)).backward()
        assert handle.last_output is not None
        torch.testing.assert_close(handle.last_output.penalty, output.penalty)
    for a, b in zip(_gradients(attached), _gradients(explicit), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10 * scale)
    assert not inputs.requires_grad
    assert inputs.grad is None


def test_gradient_accumulation_holds_the_strength() -> None:
    model = _network()
    strength = AdaptiveStrength(target_loss=20.0, initial=30.0)
    handle = attach_regularizer(model, LipschitzRegularizer(strength=strength, accumulation_steps=2))
    seen = []
    for step in range(4):
        inputs, labels = build_batch(step, 6)
        (F.cross_entropy(model(inputs), labels) / 2).backward()
        assert handle.last_output is not None
        seen.append(handle.last_output.strength.item())
    assert seen[0] == seen[1] == 30.0
    assert seen[2] == seen[3] > 30.0
    assert strength.strength > seen[3]


def test_detached_it_leaves_nothing_behind() -> None:
    model, inputs, labels = _network(), *build_batch(0, 6)
    handle = attach_regularizer(model, _regularizer())
    handle.remove()
    handle.remove()
    F.cross_entropy(model(inputs), labels).backward()
    plain = _network()
    F.cross_entropy(plain(inputs), labels).backward()
    assert all(torch.equal(a, b) for a, b in zip(_gradients(model), _gradients(plain), strict=True))
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_evaluation_and_no_grad_are_left_alone() -> None:
    model, inputs, labels = _network(), *build_batch(0, 6)
    handle = attach_regularizer(model, _regularizer())
    with torch.no_grad():
        model(inputs)
    F.cross_entropy(model.eval()(inputs), labels).backward()
    assert handle.last_output is None


@pytest.mark.parametrize(
    "loss",
    [
        lambda logits, labels: F.cross_entropy(logits, labels, label_smoothing=0.1),
        lambda logits, labels: F.cross_entropy(logits, labels, weight=torch.tensor([1.0, 2.0, 3.0, 4.0]).double()),
        lambda logits, labels: F.cross_entropy(logits, labels) + logits.square().mean(),
        lambda logits, labels: F.mse_loss(logits, F.one_hot(labels, 4).double()),
        lambda logits, labels: -F.cross_entropy(logits, labels),
    ],
)
def test_any_other_loss_is_an_error(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    model, inputs, labels = _network(), *build_batch(0, 6)
    attach_regularizer(model, _regularizer())
    with pytest.raises(UnsupportedLossError, match="loss:"):
        loss(model(inputs), labels).backward()


@given(seeds)
def test_labels_are_read_off_the_gradient_also_where_it_vanishes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 30 * torch.randn(50, 7, generator=generator)
    labels = torch.where(torch.rand(50, generator=generator) < 0.8, logits.argmax(1), torch.randint(7, (50,)))
    logits.requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits, labels), logits)
    reading = read_cross_entropy(logits.detach(), gradient)
    assert torch.equal(reading.labels, labels)
    assert reading.scale.item() == pytest.approx(1.0, rel=1e-3)


@pytest.mark.parametrize("margin", [1.0, 6.0, 11.0, 14.0, 17.0, 25.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_batch_that_fits_well_is_read_too(margin: float, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(10, (32,), generator=generator)
    logits = torch.randn(32, 10, generator=generator) + margin * F.one_hot(labels, 10)
    logits = logits.to(dtype).requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(logits.float(), labels), logits)
    if gradient.any():
        reading = read_cross_entropy(logits.detach(), gradient)
        assert torch.equal(reading.labels, labels)
        assert reading.scale.item() == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_little_label_smoothing_is_noticed(dtype: torch.dtype) -> None:
    logits = torch.randn(64, 10, generator=torch.Generator().manual_seed(0)).to(dtype).requires_grad_()
    loss = F.cross_entropy(logits.float(), logits.argmax(1), label_smoothing=0.05)
    (gradient,) = torch.autograd.grad(loss, logits)
    with pytest.raises(UnsupportedLossError):
        read_cross_entropy(logits.detach(), gradient)


@pytest.mark.parametrize("factor", [0.0, float("nan"), float("inf")])
def test_a_loss_that_counts_for_nothing_adds_nothing(factor: float) -> None:
    model, inputs, labels = _network(), *build_batch(0, 6)
    handle = attach_regularizer(model, _regularizer())
    (factor * F.cross_entropy(model(inputs), labels)).backward()
    assert handle.last_output is None
    assert factor != 0 or not any(g.any() for g in _gradients(model))


def test_a_known_scale_is_used() -> None:
    model, inputs, labels = _network(), *build_batch(0, 6)
    attach_regularizer(model, _regularizer(), loss_scale=2.0)
    F.cross_entropy(model(inputs), labels).backward()
    other = _network()
    leaf = inputs.clone().requires_grad_()
    logits = other(leaf)
    output = _regularizer()(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels).detach())
    (F.cross_entropy(logits, labels) + 2 * output.strength * output.penalty).backward()
    for a, b in zip(_gradients(model), _gradients(other), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-10)


def test_what_cannot_be_attached_to_is_refused() -> None:
    with pytest.raises(InvalidTypeError, match=r"model: expected an nn\.Module, got function"):
        attach_regularizer(lambda x: x, _regularizer())  # type: ignore[arg-type, return-value]
    with pytest.raises(InvalidInputError, match="loss_scale: expected a positive factor"):
        attach_regularizer(_network(), _regularizer(), loss_scale=0.0)
    embedding = nn.EmbeddingBag(4, 3)
    attach_regularizer(embedding, _regularizer())
    with pytest.raises(InvalidTypeError, match="floating inputs as the first positional argument"):
        embedding(torch.zeros(2, 2, dtype=torch.long))
    wide = nn.Identity()
    attach_regularizer(wide, _regularizer())
    with pytest.raises(InvalidTypeError, match=r"logits of shape \(N, C\)"):
        wide(torch.zeros(2, 2, 2))
