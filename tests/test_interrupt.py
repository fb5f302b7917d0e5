"""Ctrl-C at any line: the model, the thread and the program are as before."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import interrupting
import pytest
import torch
from contracts import assert_unchanged, half_frozen, snapshot
from interrupting import interrupted_at, lines_of, sampled
from strategies import build_batch, build_convolutional
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import (
    AdaptiveStrength,
    AdversarialAttribution,
    AdversarialTraining,
    ContrastiveAdversarialAttribution,
    EnsembleAttack,
    FixedSizeAttack,
    HalfHuberReLU,
    LayerAdversarialAttribution,
    LipschitzRegularizer,
    MinimalAdversarialAttribution,
    MinimumNormAttack,
    PaperAttack,
    RegularizedModule,
    accuracy_robustness_area,
    attach_regularizer,
    local_lipschitz,
    margin_radius,
    recalibrate_batch_norm,
    replace_activations,
)
from captum_lipschitz._trace import _TURN, no_trace, settled, undone
from captum_lipschitz.criteria import Misclassified
from captum_lipschitz.geometry import RMSE
from captum_lipschitz.metrics import attack_keeping_explanation, invalidation
from captum_lipschitz.metrics.masking import find_doubts
from captum_lipschitz.metrics.measurement import Measurement
from captum_lipschitz.report.explanations.explaining import Setting, explaining, one_by_one
from captum_lipschitz.report.explanations.layers import runs_of
from captum_lipschitz.training import StepRegularizer

PLACES = 24  # of each call; the sweep under the mark "whole_run" takes many more
ATTACK = MinimumNormAttack(steps=3)


@pytest.fixture(autouse=True)
def _no_lock_is_kept() -> Iterator[None]:
    """What another thread would wait for without end."""
    yield
    interrupting._LAST.clear()
    gc.collect()
    with ThreadPoolExecutor(1) as pool:
        taken = pool.submit(lambda: _TURN.acquire(timeout=5) and (_TURN.release() or True)).result()
    assert taken


def noise(model: Any, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    model(inputs)
    return inputs + sizes[:, None, None, None] * torch.randn(inputs.shape, dtype=inputs.dtype).sign()


def slopes(model: nn.Module) -> Callable[[Tensor, Tensor], Tensor]:
    def explain(images: Tensor, targets: Tensor) -> Tensor:
        images = images if images.requires_grad else images.requires_grad_()
        return torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images, create_graph=True)[0]

    return explain


def doubts(model: nn.Module, x: Tensor, y: Tensor) -> Any:
    measurement = Measurement(model, ATTACK, Misclassified(), RMSE(), None, None)
    return find_doubts(measurement, x, y, torch.ones(len(x)))


def drawing(model: nn.Module, x: Tensor, y: Tensor) -> Any:
    """As the audit runs a method of Captum's that draws."""
    return explaining(
        model, one_by_one(lambda a, t: slopes(model)(a + torch.rand(1), t), seed=3), Setting(outputs=4, rows=2)
    )(x, y)


Call = Callable[[nn.Module, Tensor, Tensor], Any]
CALLS: dict[str, Call] = {
    "minimum_norm": ATTACK,
    "paper": PaperAttack(steps=2, rho=1.0),
    "paper_fixed": PaperAttack(mode="fixed", steps=2, rho=1.0),
    "ensemble": EnsembleAttack([PaperAttack(steps=1, rho=1.0), FixedSizeAttack(noise, rounds=1)]),
    "sized": FixedSizeAttack(noise, rounds=2),
    "adversarial": lambda m, x, y: AdversarialAttribution(m).attribute(x, y, n_steps=2),
    "contrastive": lambda m, x, y: ContrastiveAdversarialAttribution(m).attribute(x, y, n_steps=2),
    "layer": lambda m, x, y: LayerAdversarialAttribution(m, [m[0], m[1]]).attribute(x, y, n_steps=2),
    "minimal": lambda m, x, y: MinimalAdversarialAttribution(m).attribute(x, y, n_steps=2),
    "area": lambda m, x, y: accuracy_robustness_area(m, (x, y), attack=ATTACK, doubts="off"),
    "doubts": doubts,
    "invalidation": lambda m, x, y: invalidation(m, x, y, explain=slopes(m), attack=ATTACK),
    "keeping": lambda m, x, y: attack_keeping_explanation(m, x, y, explain=slopes(m), attack=ATTACK, steps=2),
    "local_lipschitz": lambda m, x, _: local_lipschitz(m, x, iterations=2),
    "margin_radius": margin_radius,
    "audit_draws": drawing,
    "audit_layers": lambda m, x, _: runs_of(m, x[:1]),
    "adversarial_training": AdversarialTraining(attack=PaperAttack(steps=2, rho=1.0), probability=1.0),
}


def case() -> tuple[nn.Module, Tensor, Tensor]:
    inputs, _ = build_batch(1, 3)
    network = build_convolutional(2)
    with torch.no_grad():
        labels = network(inputs).argmax(1)
    return half_frozen(network), inputs, labels


def left_behind(call: Call, places: int) -> list[str]:
    """What a call leaves changed where Ctrl-C comes, and places that it did not come to: of so many, none."""
    model, inputs, labels = case()
    call(model, inputs, labels)  # what torch imports at its first use is none of ours
    lines = lines_of(lambda: call(model, inputs, labels))
    found = []
    for at in sampled(lines, places, seed=lines):
        torch.manual_seed(at)
        with torch.no_grad() if at % 2 else torch.enable_grad():
            before = snapshot(model, inputs, labels)
            place = interrupted_at(lambda: call(model, inputs, labels), at)
            if not place:
                found.append(f"line {at} of {lines} was not reached")
            try:
                assert_unchanged(before, snapshot(model, inputs, labels))
            except AssertionError as error:
                found.append(f"{error} by Ctrl-C at line {at} of {lines}, {place}")
    return found


@pytest.mark.parametrize("name", CALLS)
def test_any_line(name: str) -> None:
    assert left_behind(CALLS[name], PLACES) == []


@pytest.mark.slow
@pytest.mark.whole_run
@pytest.mark.parametrize("name", CALLS)
def test_many_lines(name: str) -> None:
    assert left_behind(CALLS[name], 400) == []


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("evaluation", [True, False])
def test_every_line_of_what_leaves_no_trace(grad: bool, evaluation: bool) -> None:
    """In Python's own ``contextlib`` too, where nothing of ours runs that could put things back."""
    model, inputs, _ = case()
    model.train()

    def call() -> None:
        with settled(), no_trace(model, inputs, evaluation=evaluation), no_trace(model[0], inputs):
            model(inputs + torch.randn(1))

    lines = lines_of(call)
    for at in range(1, lines + 1):
        with torch.set_grad_enabled(grad):
            before = snapshot(model)
            place = interrupted_at(call, at)
            try:
                assert_unchanged(before, snapshot(model))
            except AssertionError as error:
                raise AssertionError(f"line {at} of {lines}, {place}") from error


def test_what_was_torn_within_is_undone_first() -> None:
    undone_ones: list[str] = []
    torn = undone(lambda: undone_ones.append("inner"))

    def tear() -> None:
        with settled(), undone(lambda: undone_ones.append("outer")):
            torn.__enter__()  # and Ctrl-C before its end
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tear()
    assert undone_ones == ["inner", "outer"]
    with settled(), undone(lambda: undone_ones.append("later")):
        torn.__exit__(None, None, None)  # whenever its frames are dropped, it undoes nothing any more
        assert undone_ones == ["inner", "outer"]
    assert undone_ones == ["inner", "outer", "later"]


def test_who_ends_out_of_turn_undoes_its_own() -> None:
    undone_ones: list[str] = []
    first, second = (undone(lambda name=name: undone_ones.append(name)) for name in ("first", "second"))
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert undone_ones == ["first"]
    second.__exit__(None, None, None)
    assert undone_ones == ["first", "second"]


def test_an_undoing_that_fails_keeps_no_other_from_it() -> None:
    undone_ones: list[str] = []

    def fail() -> None:
        undone_ones.append("failed")
        raise RuntimeError("cannot")

    def run() -> None:
        with settled(), undone(lambda: undone_ones.append("outer")), undone(fail):
            raise KeyboardInterrupt

    with pytest.raises(RuntimeError, match="cannot"):
        run()
    assert undone_ones == ["failed", "outer"]


def training_step(model: nn.Module, x: Tensor, y: Tensor, regularizer: LipschitzRegularizer) -> float:
    inputs = x.clone().requires_grad_()
    logits = model(inputs)
    return regularizer(logits, inputs, y, task_loss=F.cross_entropy(logits, y)).loss.item()


def test_a_torn_step_counts_for_none() -> None:
    """Repeated after Ctrl-C, a step has the draws and the strength that it would have had."""
    model, inputs, labels = case()
    model.eval()

    def made() -> LipschitzRegularizer:
        strength = AdaptiveStrength(target_loss=0.5, initial=10.0)
        return LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(0))

    plain = made()
    expected = [training_step(model, inputs, labels, plain) for _ in range(2)]
    lines = lines_of(lambda: training_step(model, inputs, labels, made()))
    for at in sampled(lines, 40, seed=1):
        torn = made()
        if interrupted_at(lambda torn=torn: training_step(model, inputs, labels, torn), at):
            assert [training_step(model, inputs, labels, torn) for _ in range(2)] == expected, at


def test_draws_of_adversarial_training_are_put_back() -> None:
    model, inputs, labels = case()
    adversary = AdversarialTraining(attack=PaperAttack(steps=1, rho=1.0))
    lines = lines_of(lambda: copy.deepcopy(adversary)(model, inputs, labels))
    before = adversary.generator.get_state()
    adversary(model, inputs, labels)
    after = adversary.generator.get_state()
    for at in sampled(lines, 30, seed=2):
        adversary.generator.set_state(before)
        interrupted_at(lambda: adversary(model, inputs, labels), at)
        expected = before if at < lines - 30 else after  # the last lines come after the answer
        state = adversary.generator.get_state()
        assert torch.equal(state, before) or torch.equal(state, expected), at


@pytest.mark.parametrize("way", ["module", "step"])
def test_training_steps_leave_no_hook_and_no_choice_of_attention(way: str) -> None:
    model, inputs, labels = case()
    regularizer = LipschitzRegularizer(strength=0.1)
    module = RegularizedModule(model, regularizer) if way == "module" else None
    step = StepRegularizer(regularizer, {"network": model})

    def call() -> None:
        if module is not None:
            module(inputs, labels)
            return
        with step.watching():
            loss = F.cross_entropy(model(inputs), labels)
        step.add_penalty(loss)

    def state() -> tuple[Any, ...]:
        hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in model.modules()]
        modes = [m.training for m in model.modules()]
        flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
        return hooks, modes, flags, torch.is_grad_enabled()

    before = state()
    lines = lines_of(call)
    for at in sampled(lines, 60, seed=3):
        place = interrupted_at(call, at)
        assert state() == before, f"line {at} of {lines}, {place}"


def test_a_regularizer_is_attached_whole_or_not_at_all() -> None:
    model, *_ = case()
    regularizer = LipschitzRegularizer(strength=0.1)
    lines = lines_of(lambda: attach_regularizer(model, regularizer).remove())
    for at in range(1, lines):
        handles = []
        interrupted_at(lambda handles=handles: handles.append(attach_regularizer(model, regularizer)), at)
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) in ((0, 0), (1, 1)), at
        assert len(model._forward_hooks) == len(handles) or not handles
        for handle in handles:
            handle.remove()
        model._forward_hooks.clear()
        model._forward_pre_hooks.clear()


def test_an_attached_regularizer_stays_attached() -> None:
    model, inputs, labels = case()
    handle = attach_regularizer(model, LipschitzRegularizer(strength=0.1))

    def call() -> None:
        F.cross_entropy(model(inputs), labels).backward()

    for at in sampled(lines_of(call), 20, seed=4):
        interrupted_at(call, at)
        assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == (1, 1)
    call()
    assert handle.last_output is not None
    handle.remove()
    assert (len(model._forward_hooks), len(model._forward_pre_hooks)) == (0, 0)


def test_recalibration_is_whole_or_not_at_all() -> None:
    model, inputs, _ = case()
    start = copy.deepcopy(model.state_dict())
    recalibrate_batch_norm(model, [inputs, inputs * 2])
    whole = snapshot(model)
    lines = lines_of(lambda: recalibrate_batch_norm(model, [inputs, inputs * 2]))
    for at in sampled(lines, 60, seed=5):
        model.load_state_dict(start)
        half_frozen(model)
        torch.manual_seed(0)
        before = snapshot(model)
        interrupted_at(lambda: recalibrate_batch_norm(model, [inputs, inputs * 2]), at)
        after = snapshot(model)
        if not torch.equal(after["buffers"][0], before["buffers"][0]):
            before["buffers"] = whole["buffers"]
        assert_unchanged(before, after)


def test_activations_are_replaced_all_or_none() -> None:
    def build() -> nn.Module:
        shared = nn.ReLU()
        return nn.Sequential(nn.BatchNorm1d(3), shared, nn.Sequential(nn.ReLU(), shared), nn.ReLU())

    lines = lines_of(lambda: replace_activations(build()))
    kinds = set()
    for at in sampled(lines, 80, seed=6):
        model = build()
        interrupted_at(lambda model=model: replace_activations(model), at)
        found = {type(module) for module in model.modules()} & {nn.ReLU, HalfHuberReLU}
        assert len(found) == 1, at
        kinds |= found
        assert model[1] is model[2][1]
    assert nn.ReLU in kinds


def test_a_factory_that_fails_replaces_nothing() -> None:
    made = []

    def factory() -> nn.Module:
        made.append(1)
        if len(made) == 2:
            raise RuntimeError("no more")
        return HalfHuberReLU()

    model = nn.Sequential(nn.BatchNorm1d(3), nn.ReLU(), nn.ReLU())
    with pytest.raises(RuntimeError, match="no more"):
        replace_activations(model, factory)
    assert type(model[1]) is type(model[2]) is nn.ReLU


def test_the_sweep_can_fail() -> None:
    def careless(model: nn.Module, x: Tensor, _: Tensor) -> None:
        modes = [m.training for m in model.modules()]
        model.eval()
        local_lipschitz(model, x, iterations=1)
        for module, mode in zip(model.modules(), modes, strict=True):
            module.training = mode

    found = left_behind(careless, PLACES)
    assert found
    assert all("modes changed by Ctrl-C at line" in one for one in found)
