"""Running a component again under the same conditions, and comparing rows."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

from captum_lipschitz.testing._contract import quiet, require
from captum_lipschitz.testing._networks import Case

Answer = TypeVar("Answer")

_DEPTH = 4
_NUDGES = 3


def generators(component: object, depth: int = _DEPTH) -> list[torch.Generator]:
    """The random generators that a component holds, in itself or in parts of it."""
    if isinstance(component, torch.Generator):
        return [component]
    if depth == 0 or isinstance(component, Tensor | type):
        return []
    if isinstance(component, functools.partial):
        parts: list[Any] = [component.func, *component.args, *component.keywords.values()]
    elif isinstance(component, list | tuple | set):
        parts = list(component)
    elif isinstance(component, dict):
        parts = list(component.values())
    else:
        parts = list(getattr(component, "__dict__", {}).values())
    return [found for part in parts for found in generators(part, depth - 1)]


@contextmanager
def same_seed(component: object, seed: int = 0) -> Iterator[None]:
    """Inside, the component's own generators begin where they did, whatever torch's global seed is."""
    own = [(generator, generator.get_state()) for generator in generators(component)]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield
    for generator, state in own:
        generator.set_state(state)


def check_repeats(first: Tensor, second: Tensor) -> None:
    """The same seed gives the same bits, and that seed is the component's own: two answers under other global seeds."""
    require(
        torch.equal(first, second),
        "the same seed gives the same bits",
        "a second call, with the same torch.Generator and another global seed, to repeat the first",
        f"a difference of {_largest(first, second)}",
    )


def check_rows(run: Callable[[Case], Tensor], case: Case, rtol: float) -> None:
    """A row of the answer depends on its own image alone: permuting or splitting the batch changes nothing.

    Another batch shape rounds otherwise, and a search that decides at the boundary may turn that into more than
    rounding. So where rows differ, they may by twice what the component makes of inputs moved by their last bit.

    Args:
        run: runs the component and returns a tensor of N rows.
        case: a model in evaluation mode.
        rtol: rounding that is allowed, relative to each row's largest value.
    """
    with quiet():
        whole = run(case)
        order = torch.tensor([3, 0, 4, 2, 1], device=case.inputs.device)
        permuted = run(_rows(case, order))
        split = torch.cat([run(_rows(case, part)) for part in (order[:1], order[1:])])
    for found, how in ((permuted, "permuted"), (split, "split into one image and the others")):
        if _apart(found, whole[order]) <= rtol:
            continue
        allowed = max(rtol, 2 * _of_rounding(run, case, whole))
        require(
            _apart(found, whole[order]) <= allowed,
            "one image's answer does not depend on its neighbours",
            f"the rows of a batch that is {how} to be those of the whole, to a relative {allowed:.2g}",
            f"a relative difference of {_apart(found, whole[order]):.2g}",
        )


def _of_rounding(run: Callable[[Case], Tensor], case: Case, whole: Tensor) -> float:
    """How far rows move, relative to themselves, where the inputs are moved by about their last bit."""
    worst = 0.0
    for seed in range(_NUDGES):
        noise = torch.randn(case.inputs.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        step = 4 * torch.finfo(case.inputs.dtype).eps * noise.to(case.inputs)
        with quiet():
            worst = max(worst, _apart(run(case._replace(inputs=case.inputs * (1 + step))), whole))
    return worst


def _rows(case: Case, index: Tensor) -> Case:
    return Case(case.model, case.inputs.detach()[index], case.labels[index])


def _apart(a: Tensor, b: Tensor) -> float:
    """The largest difference of two answers' rows, relative to the row's largest value; ``inf`` where one has none."""
    if a.shape != b.shape or not torch.equal(torch.isfinite(a), torch.isfinite(b)):
        return math.inf
    a, b = (torch.where(torch.isfinite(x), x, torch.zeros_like(x)).reshape(len(x), -1) for x in (a, b))
    size = torch.maximum(a.abs().amax(1), b.abs().amax(1)).clamp(min=torch.finfo(a.dtype).tiny)
    return float(((a - b).abs().amax(1) / size).max())


def _largest(a: Tensor, b: Tensor) -> str:
    if a.shape != b.shape:
        return f"shapes {tuple(a.shape)} and {tuple(b.shape)}"
    difference = torch.where(a == b, torch.zeros_like(a), (a - b).abs())
    return f"{float(difference.max()):.3g}"
