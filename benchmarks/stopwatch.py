"""Time and memory of training steps that take turns in one process: what slows the machine slows all of them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch.profiler import ProfilerActivity, profile


class Seconds(NamedTuple):
    """Of one step.

    Attributes:
        wall: by the clock.
        processor: of this process's CPU time, which does not count what other processes take.
    """

    wall: float
    processor: float


@dataclass
class Timing:
    """One method's measurements, an entry a round.

    Attributes:
        seconds: of a step.
        ratios: wall time over that of the plain steps right before and after.
        processor_ratios: the same in CPU time.
    """

    seconds: list[Seconds] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    processor_ratios: list[float] = field(default_factory=list)

    @property
    def median_seconds(self) -> float:
        """Wall time of a step, median over the rounds."""
        return statistics.median(measured.wall for measured in self.seconds)


class Stopwatch:
    """Measures steps on one device.

    Args:
        device: where the steps run; on CUDA the clock stops when the device is done.
        block: fewest steps to time at once. More than one lets a GPU's queue fill, as it does in training.
    """

    def __init__(self, device: torch.device, *, block: int) -> None:
        self._cuda = device.type == "cuda"
        self._device = device
        self._block = block

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self._cuda:
            torch.cuda.synchronize(self._device)

    def seconds(self, step: Callable[[], object], cycle: int) -> Seconds:
        """Of one step: the mean over whole cycles of so many steps."""
        steps = cycle * -(-self._block // cycle)
        self.wait()
        wall, processor = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        self.wait()
        return Seconds((time.perf_counter() - wall) / steps, (time.process_time() - processor) / steps)

    def take_turns(
        self, plain: Callable[[], object], others: Mapping[str, tuple[Callable[[], object], int]], *, rounds: int
    ) -> dict[str, Timing]:
        """Time every method in every round, each between two plain steps.

        Args:
            plain: one plain step.
            others: by name, a step and the length of its cycle.
            rounds: how often.
        """
        timings = {name: Timing() for name in ("plain", *others)}
        for _ in range(rounds):
            before = self._plain(plain, timings["plain"])
            for name, (step, cycle) in others.items():
                measured = self.seconds(step, cycle)
                after = self._plain(plain, timings["plain"])
                timings[name].seconds.append(measured)
                timings[name].ratios.append(2 * measured.wall / (before.wall + after.wall))
                timings[name].processor_ratios.append(2 * measured.processor / (before.processor + after.processor))
                before = after
        return timings

    def _plain(self, step: Callable[[], object], timing: Timing) -> Seconds:
        measured = self.seconds(step, 1)
        timing.seconds.append(measured)
        timing.ratios.append(1.0)
        timing.processor_ratios.append(1.0)
        return measured

    def peak_bytes(self, step: Callable[[], object], steps: int, held: int) -> int:
        """Most bytes that tensors held at any moment of so many steps.

        Resident memory would tell of the allocator's reserve and the compiler as well, so on the CPU every allocation
        is recorded instead.

        Args:
            step: one step, which holds nothing from one call to the next but what ``held`` counts.
            steps: how many.
            held: bytes of the tensors that are there before.
        """
        if self._cuda:
            self.wait()
            torch.cuda.reset_peak_memory_stats(self._device)
            for _ in range(steps):
                step()
            return torch.cuda.max_memory_allocated(self._device)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
            for _ in range(steps):
                step()
        events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
        peak = total = 0
        for event in sorted(events, key=lambda event: event.start_ns()):
            total += event.nbytes()
            peak = max(peak, total)
        return held + peak
