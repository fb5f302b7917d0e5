"""The soak, short: nothing of a call stays behind, and what does is seen."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(autouse=True)
def _importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.delitem(sys.modules, "soak", raising=False)


def _steady(figures: dict[str, float]) -> dict[str, float]:
    """Without those that a process of many tests moves by itself: the resident set, and objects of its own."""
    return {name: rise for name, rise in figures.items() if name in ("tensors", "tensor_bytes", "hooks")}


def test_sixty_calls_leave_nothing_behind() -> None:
    import soak

    model = soak.network()
    samples = soak.soak(list(soak.calls_of(model).values()), model, number=55, samples=4)
    assert [sample.calls for sample in samples] == [11, 25, 40, 55]
    assert samples[-1].hooks == 0
    assert _steady(soak.growing(samples)) == {}, soak.table(samples)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("what", ["tensor", "hook", "object", "graph"])
def test_a_leak_is_seen(what: str) -> None:
    import soak

    model = soak.network()
    cells: list[object] = []
    leak: dict[str, Callable[[], object]] = {
        "tensor": lambda: cells.append(torch.zeros(5)),
        "hook": lambda: next(model.children()).register_forward_hook(lambda *_: None),
        "object": lambda: cells.append([[] for _ in range(50)]),  # more than the process's other objects come and go
        "graph": lambda: cells.append(model(torch.zeros(1, *soak.SHAPE)).sum()),
    }
    found = soak.growing(soak.soak([leak[what]], model, number=12, samples=3))
    expected = {"tensor": "tensors", "hook": "hooks", "object": "objects", "graph": "tensors"}[what]
    assert found[expected] >= 999


def _hooks() -> dict[str, Callable[[nn.Module], Any]]:
    """One way to leave each kind of hook behind."""
    every = nn.modules.module
    return {
        "forward": lambda m: m[0].register_forward_hook(print),
        "forward, before": lambda m: m[0].register_forward_pre_hook(print),
        "backward": lambda m: m[0].register_full_backward_hook(print),
        "backward, before": lambda m: m[0].register_full_backward_pre_hook(print),
        "state": lambda m: m[0].register_state_dict_post_hook(lambda *_: None),
        "state, before": lambda m: m[0].register_state_dict_pre_hook(print),
        "loading": lambda m: m[0].register_load_state_dict_post_hook(print),
        "loading, before": lambda m: m[0].register_load_state_dict_pre_hook(print),
        "gradient": lambda m: m[0].weight.register_hook(print),
        "gradient, added": lambda m: m[0].weight.register_post_accumulate_grad_hook(print),
        "all modules": lambda _: every.register_module_forward_hook(print),
        "all modules, before": lambda _: every.register_module_forward_pre_hook(print),
    }


@pytest.mark.parametrize("kind", _hooks())
def test_hooks_of_every_kind_are_counted(kind: str) -> None:
    import soak

    model = soak.network()
    assert soak.hooks_of(model) == 0
    handle = _hooks()[kind](model)
    try:
        assert soak.hooks_of(model) == 1
    finally:
        handle.remove()


LEAKING = """
import sys
sys.path.insert(0, sys.argv[1])
import soak, torch
torch.set_num_threads(1)
model, cells = soak.network(), []
leak = {"nothing": lambda: None, "bytes": lambda: cells.append(bytes(1024)), "objects": lambda: cells.append([])}
for what, call in leak.items():
    soak.soak([call] + 10 * [lambda: None], model, number=22, samples=2)
    print(what, *sorted(soak.growing(soak.soak([call] + 10 * [lambda: None], model, number=2200, samples=3))))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc tells how much memory it has given out")
def test_one_kibibyte_in_one_kind_of_call_is_seen() -> None:
    """In a process of its own: the memory of this one moves with all that the tests have imported."""
    command = [sys.executable, "-c", LEAKING, str(BENCHMARKS)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines() == ["nothing", "bytes blocks heap", "objects blocks objects"], done.stderr


def test_the_slope_is_that_of_the_line() -> None:
    import soak

    flat = [soak.Sample(calls, 500.0, 9000.0, 70, 10, 4.0, 1000, 2) for calls in (400, 800, 1200)]
    assert soak.growing(flat) == {}
    steep = [sample._replace(resident=500 + sample.calls * 0.005) for sample in flat]
    assert soak.growing(steep) == {"resident": pytest.approx(5.0)}
    assert "| rise over 1,000 calls | 5.00 | 0.00 |" in soak.table(steep)
