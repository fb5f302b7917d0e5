"""Several training processes: one loss for all of them, and parameters that must not drift apart."""

from __future__ import annotations

import weakref
from collections.abc import Iterable

import torch
from torch import Tensor, distributed

from captum_lipschitz.errors import UnsupportedTrainingError

_WATCHED = 8  # parameters, spread over the model
_ENTRIES = 4096  # of each


def number_of_processes(group: distributed.ProcessGroup | None = None) -> int:
    """How many processes train together; 1 without ``torch.distributed``."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size(group)


def process_rank() -> int:
    """This process's number among all; 0 without ``torch.distributed``."""
    return distributed.get_rank() if number_of_processes() > 1 else 0


class ProcessWatch:
    """Averages each step's loss over the processes, and notices where their parameters are not the same any more.

    Whatever way a penalty's gradient misses the exchange between processes (a forward pass of ``ddp.module``, two
    backward passes, a static graph), the parameters differ after the next optimiser step. A sum over some of them
    travels with the loss. It is looked at, which waits for the device, after steps 1 to 4 and then 8, 16, 32 and so on;
    what differed in between is remembered. Sharded parameters (``fully_shard``) differ by design and are left out.

    Args:
        group: of the processes that train the same parameters on other data; ``None`` for all.
    """

    def __init__(self, group: distributed.ProcessGroup | None = None) -> None:
        self.group = group
        self._parameters: list[weakref.ref[Tensor]] = []
        self._apart: Tensor | None = None
        self._steps = 0

    def __reduce__(self) -> tuple[type[ProcessWatch], tuple[()]]:
        return ProcessWatch, ()  # a copy trains other parameters, and process groups cannot be pickled

    def __deepcopy__(self, _: object) -> ProcessWatch:
        return ProcessWatch(self.group)

    def wants_parameters(self) -> bool:
        """Whether there is anything to watch."""
        return number_of_processes(self.group) > 1

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """Watch some of these parameters, the same in each process; others than before are watched anew."""
        whole = [p for p in parameters if p.requires_grad and not hasattr(p, "placements")]
        chosen = whole[:: -(-len(whole) // _WATCHED) or 1]
        watched = [reference() for reference in self._parameters]
        if len(chosen) != len(watched) or any(a is not b for a, b in zip(chosen, watched, strict=True)):
            self._parameters = [weakref.ref(parameter) for parameter in chosen]
            self._apart, self._steps = None, 0

    def first(self, value: int, device: torch.device) -> int:
        """The first process's value, in all of them, which must call together. Waits for the device."""
        if number_of_processes(self.group) == 1:
            return value
        own = torch.tensor([value], device=device)
        everyone = [torch.empty_like(own) for _ in range(number_of_processes(self.group))]
        distributed.all_gather(everyone, own, group=self.group)
        return int(everyone[0])

    def mean(self, loss: Tensor) -> Tensor:
        """One optimiser step's loss, a scalar, in the mean over the processes, all of which must call.

        Raises:
            UnsupportedTrainingError: the processes' parameters have drifted apart.
        """
        if number_of_processes(self.group) == 1:
            return loss
        own = torch.stack([loss.detach().double().reshape(()), self._fingerprint(loss.device)])
        everyone = [torch.empty_like(own) for _ in range(number_of_processes(self.group))]
        distributed.all_gather(everyone, own, group=self.group)
        losses, prints = torch.stack(everyone).unbind(1)
        self._compare(prints)
        return losses.mean().to(loss.dtype)

    def _fingerprint(self, device: torch.device) -> Tensor:
        total = torch.zeros((), dtype=torch.float64, device=device)
        for reference in self._parameters:
            parameter = reference()
            if parameter is not None:
                total += parameter.detach().flatten()[:_ENTRIES].double().sum().to(device)
        return total

    def _compare(self, prints: Tensor) -> None:
        apart = (prints != prints[0]).any() & prints.isfinite().all()
        self._apart = apart if self._apart is None else self._apart | apart
        looked_at = self._steps <= 4 or self._steps & (self._steps - 1) == 0
        self._steps += 1
        if looked_at and bool(self._apart):
            raise UnsupportedTrainingError(
                "the processes' parameters differ: gradients were not exchanged. Form the loss inside the wrapped "
                "module, DistributedDataParallel(RegularizedModule(model, regularizer)), run its forward pass (not "
                "that of .module), and call backward once on the sum of task loss and penalty. If not all processes "
                "train the same parameters (parts of a model, local SGD), say process_group= of those that do"
            )
