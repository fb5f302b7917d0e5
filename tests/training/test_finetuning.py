"""The schedule from ReLU to half-Huber against a plain re-statement, and what it does to a network."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounterWithBackend
from torch.nn import functional as F

from captum_lipschitz import HalfHuberReLU, LipschitzRegularizer, replace_activations
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnreachableActivationError
from captum_lipschitz.training.finetuning import HalfHuberSchedule


def relu_network() -> nn.Sequential:
    """Convolution, BatchNorm and ReLU, twice, with two places that share one ReLU."""
    torch.manual_seed(0)
    relu = nn.ReLU()
    layers = [nn.Conv2d(2, 6, 3), nn.BatchNorm2d(6), relu, nn.Conv2d(6, 6, 3), nn.BatchNorm2d(6), relu]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(6, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4))


def deltas(model: nn.Module) -> list[float]:
    return [module.delta for module in model.modules() if isinstance(module, HalfHuberReLU)]


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 60), st.floats(0.01, 4), st.floats(0.01, 4))
def test_delta_moves_in_equal_jumps(steps: int, levels: int, taken: int, start: float, final: float) -> None:
    model = replace_activations(relu_network(), lambda: HalfHuberReLU(start))
    schedule = HalfHuberSchedule(model, steps=steps, final_delta=final, levels=levels)
    jumps = 0
    for n in range(taken):
        schedule.step()
        if n + 1 <= steps:
            # How many of the levels' shares of the steps are past, in whole numbers.
            jumps = sum(Fraction(k, levels) <= Fraction(n + 1, steps) for k in range(1, levels + 1))
    expected = start * (1 - jumps / levels) + final * (jumps / levels)
    assert schedule.delta == pytest.approx(expected, rel=1e-12)
    assert deltas(model) == [schedule.delta, schedule.delta]
    if taken >= steps:
        assert schedule.delta == final


@given(st.integers(1, 50), st.integers(1, 12))
def test_no_more_values_than_promised(steps: int, levels: int) -> None:
    schedule = HalfHuberSchedule(relu_network(), steps=steps, levels=levels)
    seen = [schedule.delta]
    for _ in range(steps + 3):
        schedule.step()
        seen.append(schedule.delta)
    assert seen == sorted(seen)
    assert len(set(seen)) == min(steps, levels) + 1
    assert seen.index(0.5) == steps


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_outputs_stay_what_they_were(dtype: torch.dtype) -> None:
    model = relu_network().eval().to(dtype)
    inputs = torch.randn(16, 2, 5, 5).to(dtype)
    before = model(inputs)
    schedule = HalfHuberSchedule(model, steps=3)
    scale = before.abs().max().item()
    rounding = max(torch.finfo(dtype).eps, 2.0**-20)
    torch.testing.assert_close(model(inputs), before, rtol=0, atol=8 * scale * rounding)
    assert not any(type(module) is nn.ReLU for module in model.modules())
    schedule.step()
    assert (model(inputs) - before).abs().max() > 8 * scale * rounding


def test_half_precision_takes_a_larger_start() -> None:
    x = torch.linspace(-2, 2, 401, dtype=torch.float16)
    model = nn.Sequential(nn.BatchNorm1d(1), nn.ReLU())
    HalfHuberSchedule(model, steps=3, initial_delta=2.0**-12)
    torch.testing.assert_close(model[1](x), x.relu(), rtol=2**-10, atol=2**-11)


def _train(model: nn.Module, schedule: HalfHuberSchedule, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        images, labels = build_batch(step, 8, dtype=torch.float32)
        images.requires_grad_()
        logits = model(images)
        generator = torch.Generator().manual_seed(step)
        regularizer = LipschitzRegularizer(strength=0.5, generator=generator)
        task_loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        regularizer(logits, images, labels, task_loss=task_loss).loss.backward()
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("cut", [0, 1, 4, 9])
def test_from_a_checkpoint_training_continues_identically(cut: int) -> None:
    def start() -> tuple[nn.Module, HalfHuberSchedule, torch.optim.Optimizer]:
        model = relu_network()
        schedule = HalfHuberSchedule(model, steps=7, levels=4)
        return model, schedule, torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    whole = start()
    _train(*whole, range(12))
    first, second = start(), start()
    _train(*first, range(cut))
    for old, new in zip(first, second, strict=True):
        new.load_state_dict(old.state_dict())
    assert deltas(second[0]) == deltas(first[0])
    _train(*second, range(cut, 12))
    for expected, found in zip(whole[0].state_dict().values(), second[0].state_dict().values(), strict=True):
        assert torch.equal(expected, found)


def test_a_state_brings_its_start_along() -> None:
    """A network rebuilt with half-Huber activations goes on from where the first one was."""
    schedule = HalfHuberSchedule(relu_network(), steps=8, levels=4)
    for _ in range(3):
        schedule.step()
    rebuilt = HalfHuberSchedule(replace_activations(relu_network()), steps=8, levels=4)
    assert rebuilt.delta == 0.5
    rebuilt.load_state_dict(schedule.state_dict())
    for _ in range(3):
        assert rebuilt.delta == schedule.delta
        schedule.step()
        rebuilt.step()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"taken": 1},
        {"taken": -1, "initial_delta": 0.1},
        {"taken": True, "initial_delta": 0.1},
        {"taken": 1.0, "initial_delta": 0.1},
        {"taken": 1, "initial_delta": 0.0},
        {"taken": 1, "initial_delta": math.nan},
    ],
)
def test_state_of_something_else_is_refused(state: dict[str, object]) -> None:
    model = relu_network()
    schedule = HalfHuberSchedule(model, steps=2)
    before = deltas(model)
    with pytest.raises(InvalidInputError, match="state: expected"):
        schedule.load_state_dict(state)
    assert deltas(model) == before


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"steps": 0}, InvalidInputError, "steps: expected at least 1, got 0"),
        ({"steps": 2.5}, InvalidTypeError, "steps: expected a whole number, got 2.5"),
        ({"steps": 5, "levels": 0}, InvalidInputError, "levels: expected at least 1, got 0"),
        ({"steps": 5, "levels": True}, InvalidTypeError, "levels: expected a whole number, got True"),
        ({"steps": 5, "final_delta": 0.0}, InvalidInputError, "final_delta: expected a finite positive number"),
        ({"steps": 5, "final_delta": math.inf}, InvalidInputError, "final_delta: expected a finite positive number"),
        ({"steps": 5, "initial_delta": -1.0}, InvalidInputError, "initial_delta: expected a finite positive number"),
    ],
)
def test_settings_are_checked_before_anything_is_replaced(
    settings: dict[str, float], error: type[Exception], message: str
) -> None:
    model = relu_network()
    with pytest.raises(error, match=message):
        HalfHuberSchedule(model, **settings)  # type: ignore[arg-type]
    assert deltas(model) == []


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.relu = nn.BatchNorm1d(3), nn.ReLU()

    def forward(self, inputs: Tensor) -> Tensor:
        return F.relu(self.norm(self.relu(inputs)))


def test_networks_that_it_cannot_work_on() -> None:
    functional = _Functional()
    with pytest.raises(UnreachableActivationError, match="Nothing was replaced"):
        HalfHuberSchedule(functional, steps=2)
    assert isinstance(functional.relu, nn.ReLU)
    with pytest.raises(InvalidInputError, match=r"model: expected nn\.ReLU modules, Linear has none"):
        HalfHuberSchedule(nn.Linear(2, 2), steps=2)
    with pytest.raises(InvalidInputError, match="model: expected HalfHuberReLUs of one delta"):
        HalfHuberSchedule(nn.Sequential(HalfHuberReLU(0.1), HalfHuberReLU(0.2)), steps=2)
    mixed = nn.Sequential(nn.BatchNorm1d(2), nn.ReLU(), HalfHuberReLU(0.2))
    with pytest.raises(InvalidInputError, match="got both"):
        HalfHuberSchedule(mixed, steps=2)
    assert type(mixed[1]) is nn.ReLU
    with pytest.raises(InvalidTypeError, match=r"model: expected an nn\.Module, got function"):
        HalfHuberSchedule(lambda x: x, steps=2)  # type: ignore[arg-type]


def test_half_huber_networks_go_on_from_their_delta() -> None:
    model = build_convolutional(0)
    schedule = HalfHuberSchedule(model, steps=2, final_delta=0.1, levels=2)
    assert schedule.delta == 0.5
    schedule.step()
    assert deltas(model) == [pytest.approx(0.3)]
    schedule.step()
    assert deltas(model) == [0.1]


@pytest.mark.parametrize(("levels", "evaluated"), [(7, False), (3, True)])
def test_compiled_graphs_stay_within_the_limit(levels: int, evaluated: bool) -> None:
    """As documented: 7 jumps in training mode, or 3 with evaluation on the way, are 8 graphs; none falls to eager."""
    torch._dynamo.reset()
    model = relu_network()
    schedule = HalfHuberSchedule(model, steps=levels, levels=levels)
    counter = CompileCounterWithBackend("eager")
    compiled = torch.compile(model, backend=counter)
    inputs = torch.randn(4, 2, 5, 5)
    for _ in range(levels + 1):
        for training in (True, False) if evaluated else (True,):
            model.train(training)
            kept = {name: value.clone() for name, value in model.state_dict().items()}
            found = compiled(inputs)
            model.load_state_dict(kept)
            torch.testing.assert_close(found, model(inputs))
        schedule.step()
    assert counter.frame_count == 8
    settings = torch._dynamo.config
    limit = settings.recompile_limit if hasattr(settings, "recompile_limit") else settings.cache_size_limit  # torch 2.6
    assert limit == 8
    torch._dynamo.reset()
