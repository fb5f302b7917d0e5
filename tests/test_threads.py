"""Two threads at once, with two models: the answers of a serial run, to the bit, and nothing left changed."""

from __future__ import annotations

import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from contracts import assert_unchanged, snapshot
from strategies import build_batch, build_convolutional
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import (
    AdversarialAttribution,
    AdversarialTraining,
    FixedSizeAttack,
    LayerAdversarialAttribution,
    LipschitzRegularizer,
    MinimalAdversarialAttribution,
    MinimumNormAttack,
    PaperAttack,
    RegularizedModule,
    accuracy_robustness_area,
    local_lipschitz,
)
from captum_lipschitz._shared import Shared
from captum_lipschitz._trace import no_trace, seeded
from captum_lipschitz.training.attention import plain_attention

THREADS, TURNS = 2, 3


def noise(model: Any, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
    """Draws from the global random state, the model's run in between."""
    first = torch.randn(inputs.shape, dtype=inputs.dtype)
    model(inputs)
    return inputs + sizes[:, None, None, None] * (first + torch.randn(inputs.shape, dtype=inputs.dtype)).sign()


def train(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Three steps with penalty and adversarial images, without dropout."""
    model.train()
    regularizer = LipschitzRegularizer(strength=0.1, generator=torch.Generator().manual_seed(0))
    wrapped = RegularizedModule(model, regularizer)
    model[3].eval()  # dropout draws from the global state, which threads share
    attack = PaperAttack(steps=2, rho=0.1)
    adversary = AdversarialTraining(attack=attack, generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(3):
        images = adversary(model, x, y)
        logits, penalty = wrapped(images, y)
        optimizer.zero_grad()
        regularizer.combine(penalty, task_loss=F.cross_entropy(logits, y)).loss.backward()
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in model.parameters()])


WORK: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    "adversarial": lambda m, x, y: AdversarialAttribution(m).attribute(x, y, n_steps=5),
    "minimal": lambda m, x, y: MinimalAdversarialAttribution(m).attribute(x, y, n_steps=10),
    "layer": lambda m, x, y: LayerAdversarialAttribution(m, m[0]).attribute(x, y, n_steps=5),
    "sized": lambda m, x, y: FixedSizeAttack(noise, rounds=6)(m, x, y).distances,
    "area": lambda m, x, y: accuracy_robustness_area(m, (x, y), attack=MinimumNormAttack(steps=8)).distances,
    "local_lipschitz": lambda m, x, _: local_lipschitz(m, x, iterations=5),
    "train": train,
}


def case(seed: int) -> tuple[nn.Module, Tensor, Tensor]:
    inputs, _ = build_batch(seed, 4)
    network = build_convolutional(seed)
    with torch.no_grad():
        return network, inputs, network(inputs).argmax(1)


def at_once(*jobs: Callable[[], Any]) -> list[Any]:
    """All of them begin together, each in a thread of its own."""
    start = threading.Barrier(len(jobs))

    def run(job: Callable[[], Any]) -> Any:
        start.wait()
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return [future.result(timeout=120) for future in [pool.submit(run, job) for job in jobs]]


@pytest.fixture(autouse=True)
def _switching_often() -> Any:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("name", WORK)
def test_the_answers_are_those_of_a_serial_run(name: str) -> None:
    serial = [WORK[name](*case(seed)) for seed in range(THREADS)]
    state = torch.get_rng_state()
    for _ in range(TURNS):
        made = [case(seed) for seed in range(THREADS)]  # here: weights are drawn from the global state
        found = at_once(*(lambda one=one: WORK[name](*one) for one in made))
        assert all(torch.equal(one, other) for one, other in zip(found, serial, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_different_work_side_by_side() -> None:
    serial = [work(*case(seed)) for seed, work in enumerate(WORK.values())]
    flags = torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled()
    filters = list(warnings.filters)
    state = torch.get_rng_state()
    made = [case(seed) for seed in range(len(WORK))]
    found = at_once(*(lambda one=one, work=work: work(*one) for one, work in zip(made, WORK.values(), strict=True)))
    assert [torch.equal(one, other) for one, other in zip(found, serial, strict=True)] == [True] * len(WORK)
    assert torch.equal(torch.get_rng_state(), state)
    assert flags == (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.mem_efficient_sdp_enabled())
    assert warnings.filters == filters


def test_models_that_draw_leave_the_random_state_as_the_first_thread_found_it() -> None:
    """Interleaved for certain: the second comes after the first has drawn, and leaves after it."""
    model, inputs, _ = case(0)
    drawn, entered, left = (threading.Event() for _ in range(3))
    before = snapshot(model, inputs)

    def first() -> None:
        with no_trace(model, inputs):
            torch.rand(3)
            drawn.set()
            entered.wait(30)
        left.set()

    other, others, _ = case(1)

    def second() -> None:
        drawn.wait(30)
        with no_trace(other, others):
            entered.set()
            left.wait(30)
            torch.rand(3)

    at_once(first, second)
    assert_unchanged(before, snapshot(model, inputs))


def test_who_seeds_is_alone() -> None:
    """A thread that wants the random state back waits for one that has seeded it, and does not save what it finds."""
    model, inputs, _ = case(0)
    within, waiting = threading.Event(), threading.Event()
    state = torch.get_rng_state()
    expected = torch.rand(4, generator=torch.Generator().manual_seed(7))

    def seeding() -> Tensor:
        with seeded(7, torch.device("cpu")):
            within.set()
            waiting.wait(30)
            return torch.rand(4)

    def passing() -> None:
        within.wait(30)
        waiting.set()
        with no_trace(model, inputs):
            pass

    found, _ = at_once(seeding, passing)
    assert torch.equal(found, expected)
    assert torch.equal(torch.get_rng_state(), state)


def test_grad_mode_is_each_threads_own() -> None:
    model, inputs, labels = case(0)
    expected = AdversarialAttribution(model).attribute(inputs, labels, n_steps=3)

    def without() -> bool:
        with torch.no_grad():
            found = AdversarialAttribution(model).attribute(inputs, labels, n_steps=3)
            return torch.equal(found, expected) and not torch.is_grad_enabled()

    assert at_once(without, without) == [True, True]
    assert torch.is_grad_enabled()


def test_a_shared_setting_is_put_back_by_the_last() -> None:
    before = torch.backends.cuda.flash_sdp_enabled()
    inside, left = threading.Event(), threading.Event()
    seen: list[bool] = []

    def first() -> None:
        with plain_attention():
            inside.wait(30)
        left.set()

    def second() -> None:
        with plain_attention():
            inside.set()
            left.wait(30)
            seen.append(torch.backends.cuda.flash_sdp_enabled())

    at_once(first, second)
    assert seen == [False]
    assert torch.backends.cuda.flash_sdp_enabled() is before


def test_a_shared_setting_that_cannot_be_made() -> None:
    def change() -> Any:
        raise RuntimeError("not now")

    shared = Shared(lambda: lambda: None, change)
    for _ in range(2):
        with pytest.raises(RuntimeError, match="not now"), shared.within():
            raise AssertionError("not reached")


IMPORTING = """
import threading
import captum_lipschitz
from captum_lipschitz.plugin import plugins
start, answers = threading.Barrier(6), []
WANTED = [lambda: captum_lipschitz.AdversarialAttribution, lambda: captum_lipschitz.visualize,
          lambda: captum_lipschitz.AccuracyRobustnessArea, lambda: captum_lipschitz.LayerAdversarialAttribution,
          lambda: captum_lipschitz.create_attack("minimum_norm"), plugins]

def look(wanted):
    start.wait()
    answers.append(wanted())

threads = [threading.Thread(target=look, args=(wanted,)) for wanted in WANTED]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(len(answers))
"""


@pytest.mark.slow
def test_names_that_load_late_may_be_asked_for_by_several_threads_first() -> None:
    done = subprocess.run([sys.executable, "-c", IMPORTING], capture_output=True, text=True, check=False)
    assert (done.stdout.strip(), done.returncode) == ("6", 0), done.stderr
