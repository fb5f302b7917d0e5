"""Where the time of a training step goes, by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

_STEPS = 3
_KERNELS = 14


def profiles(steps: Mapping[str, Callable[[], object]], *, cuda: bool) -> Iterator[str]:
    """For each step: the kernels that take most time of their own, and the floating-point operations counted.

    Args:
        steps: by name, after warming up; the first is the one that the others are compared with.
        cuda: whether they run there.
    """
    first = 0
    for name, step in steps.items():
        with FlopCounterMode(display=False) as counter:
            step()
        first = first or counter.get_total_flops()
        flops = counter.get_total_flops()
        # The counter sees convolutions, matrix products and attention, and nothing inside compiled code.
        if flops:
            yield f"\n{name}: {flops / 1e9:.1f} GFLOP in products, {flops / first:.2f} of the first step's\n"
        yield _kernels(step, cuda=cuda)


def _kernels(step: Callable[[], object], *, cuda: bool) -> str:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as recorded:
        for _ in range(_STEPS):
            step()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    table: str = recorded.key_averages().table(sort_by=key, row_limit=_KERNELS, max_name_column_width=48)
    return table
