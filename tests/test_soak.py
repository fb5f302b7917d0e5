"""The soak, short: nothing of a call stays behind, and what does is seen."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

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

    model, cells = soak.network(), []
    leak: dict[str, Callable[[], object]] = {
        "tensor": lambda: cells.append(torch.zeros(5)),
        "hook": lambda: model[0].register_forward_hook(lambda *_: None),
        "object": lambda: cells.append([[] for _ in range(50)]),  # more than the process's other objects come and go
        "graph": lambda: cells.append(model(torch.zeros(1, *soak.SHAPE)).sum()),
    }
    found = soak.growing(soak.soak([leak[what]], model, number=12, samples=3))
    expected = {"tensor": "tensors", "hook": "hooks", "object": "objects", "graph": "tensors"}[what]
    assert found[expected] >= 999


def test_the_slope_is_that_of_the_line() -> None:
    import soak

    flat = [soak.Sample(calls, 500.0, 10, 4.0, 1000, 2) for calls in (400, 800, 1200)]
    assert soak.growing(flat) == {}
    steep = [sample._replace(resident=500 + sample.calls * 0.005) for sample in flat]
    assert soak.growing(steep) == {"resident": pytest.approx(5.0)}
    assert "| rise over 1,000 calls | 5.00 | 0.00 |" in soak.table(steep)
