"""Where the time of a training step goes, by kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

_STEPS = 3
_KERNELS = 14


class Products(TorchDispatchMode):
    """Counts the floating-point operations of convolutions, matrix products and attention, outside compiled code.

    torch's ``FlopCounterMode`` follows modules as well, and fails where a gradient of a leaf is asked for.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, _: Sequence[type], args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        count = flop_registry.get(func.overloadpacket)
        if count is not None:
            self.flops += int(count(*args, **(kwargs or {}), out_val=answer))
        return answer


def profiles(steps: Mapping[str, Callable[[], object]], *, cuda: bool) -> Iterator[str]:
    """For each step: the kernels that take most time of their own, and the floating-point operations counted.

    Args:
        steps: by name, after warming up; the first is the one that the others are compared with.
        cuda: whether they run there.
    """
    first = 0
    for name, step in steps.items():
        with Products() as counted:
            step()
        first = first or counted.flops
        products = (
            f": {counted.flops / 1e9:.1f} GFLOP in products, {counted.flops / first:.2f} of plain" if first else ""
        )
        yield f"\n{name}{products}\n\n{_kernels(step, cuda=cuda)}"


def _kernels(step: Callable[[], object], *, cuda: bool) -> str:
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as recorded:
        for _ in range(_STEPS):
            step()
    key = "self_device_time_total" if cuda else "self_cpu_time_total"
    table: str = recorded.key_averages().table(sort_by=key, row_limit=_KERNELS, max_name_column_width=48)
    return table
