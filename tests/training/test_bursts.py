"""every=k warns where k-fold bursts do not average out, and leaves no hook behind."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim.optimizer import _global_optimizer_pre_hooks

from captum_lipschitz import LipschitzRegularizer, RegularizedModule
from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz.training.bursts import BurstWatch


@pytest.fixture
def hooks_left() -> Callable[[], set[int]]:
    """Which of torch's hooks before an optimiser's step came up during the test and are still there."""
    before = set(_global_optimizer_pre_hooks)
    return lambda: set(_global_optimizer_pre_hooks) - before


def _clip(parameters: Iterable[Tensor]) -> None:
    torch.nn.utils.clip_grad_norm_(parameters, 0.01)


def _nothing(parameters: Iterable[Tensor]) -> None:
    """Leaves the gradients alone."""


def _train(
    make: Callable[..., Optimizer], *, every: int = 2, between: Any = _nothing, steps: int = 8, wrapped: bool = False
) -> list[str]:
    """The warnings of a training run."""
    model = build_convolutional(0).train()
    regularizer = LipschitzRegularizer(strength=1.0, every=every)
    module = RegularizedModule(model, regularizer)
    optimizer, other = make(model.parameters(), lr=0.01), Adam(nn.Linear(2, 2).parameters())
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(steps):
            inputs, labels = build_batch(step, 6)
            optimizer.zero_grad()
            if wrapped:
                logits, penalty = module(inputs, labels)
                output = regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels))
            else:
                leaf = inputs.requires_grad_()
                logits = model(leaf)
                output = regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))
            output.loss.backward()
            between(model.parameters())
            optimizer.step()
            other.step()
    return [str(warning.message) for warning in caught if issubclass(warning.category, CaptumLipschitzWarning)]


@pytest.mark.parametrize("make", [Adam, AdamW, RMSprop])
@pytest.mark.parametrize("wrapped", [False, True])
def test_adaptive_optimisers_are_warned_of_once(
    hooks_left: Callable[[], set[int]], make: Callable[..., Optimizer], *, wrapped: bool
) -> None:
    (text,) = _train(make, wrapped=wrapped)
    assert text.startswith(f"LipschitzRegularizer(every=2): {make.__name__} divides by a running size of the gradient")
    assert not hooks_left()


def test_clipping_is_warned_of(hooks_left: Callable[[], set[int]]) -> None:
    (text,) = _train(SGD, between=_clip)
    assert text.startswith("LipschitzRegularizer(every=2): gradients are clipped")
    assert not hooks_left()


@pytest.mark.parametrize("settings", [{}, {"every": 1, "between": _clip}])
def test_otherwise_nothing_is_said(hooks_left: Callable[[], set[int]], settings: dict[str, Any]) -> None:
    assert _train(SGD, **settings) == []
    assert not hooks_left()


def test_adam_without_bursts_is_fine() -> None:
    assert _train(Adam, every=1) == []


def test_a_network_that_does_not_learn_is_not_clipped(hooks_left: Callable[[], set[int]]) -> None:
    """Its gradients have one norm at every step: zero."""

    def nothing_left(parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            assert parameter.grad is not None
            parameter.grad.zero_()

    assert _train(SGD, between=nothing_left) == []
    assert not hooks_left()


@pytest.mark.parametrize(("steps", "told"), [(99, True), (100, False)])
def test_an_optimiser_that_never_comes_is_not_waited_for(steps: int, *, told: bool) -> None:
    """A network may be trained by hand; the hook would look at every step of every other optimiser."""
    weight, strange = (nn.Parameter(torch.ones(2)) for _ in range(2))
    watch, other = BurstWatch(every=2), SGD([strange], lr=0.1)
    watch.watch([weight])
    for _ in range(steps):
        other.step()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Adam([weight]).step()
    assert [str(warning.message)[:34] for warning in caught] == ["LipschitzRegularizer(every=2): Ada"] * told
    watch.next_step(due=True)  # after which the hook is gone


def test_a_run_cut_short_leaves_no_hook(hooks_left: Callable[[], set[int]]) -> None:
    assert _train(SGD, steps=1) == []
    gc.collect()
    assert not hooks_left()
