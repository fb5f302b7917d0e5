"""Several processes on one job, as torchrun starts them: what they tell each other, and how they notice a death."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol, TypeVar

from torch import distributed
from torch.distributed.rendezvous import rendezvous

from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError

T = TypeVar("T")

_PREFIX = "captum_lipschitz"  # of our names in torchrun's store
_BEAT = 1.0  # seconds between two signs of life
_LOOK = 0.05  # seconds between two looks at the others


class ProcessLostError(CaptumLipschitzError, ConnectionError):
    """Another process of the same run died or failed; finished chunks are on disk, and a restart goes on from there."""


class _Signs(Protocol):
    """What is used of torch's store: names and values that every process sees at once."""

    def set(self, key: str, value: str, /) -> None: ...

    def get(self, key: str, /) -> bytes: ...

    def check(self, keys: list[str], /) -> bool: ...


@dataclass
class Processes:
    """This process among those of the run; alone where it was not started by torchrun.

    Attributes:
        rank: 0-based.
        size: number of processes.
        local_rank: 0-based among those of this machine.
        timeout: seconds without a sign of life after which a process counts as dead.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    timeout: float = 300.0
    _store: _Signs | None = field(default=None, repr=False)

    def meet(self, place: str) -> None:
        """Wait until every process has come to ``place``, however long its work takes as long as it lives.

        Raises:
            ProcessLostError: one has failed, or given no sign of life for ``timeout`` seconds.
        """
        if self._store is None:
            return
        try:
            self._store.set(f"{_PREFIX}/{place}/{self.rank}", "here")
            self._wait(place, self._store)
        except RuntimeError as error:  # the store is gone, and with it the process that kept it
            raise ProcessLostError(_lost("the process that keeps the others together is gone", error)) from error

    def exchange(self, place: str, value: T) -> list[T]:
        """Every process's ``value``, by rank, for every process."""
        self.meet(place)
        if self._store is None:
            return [value]
        values: list[T | None] = [None] * self.size
        with _collective():
            distributed.all_gather_object(values, value)
        return [item for item in values if item is not None]

    def gather(self, place: str, value: T) -> list[T] | None:
        """Every process's ``value``, by rank, for process 0; ``None`` for the others."""
        self.meet(place)
        if self._store is None:
            return [value]
        values: list[T | None] | None = [None] * self.size if self.rank == 0 else None
        with _collective():
            distributed.gather_object(value, values)
        return None if values is None else [item for item in values if item is not None]

    def failed(self, error: BaseException) -> None:
        """Tell the others that this process ends, so that they need not wait."""
        if self._store is not None:
            try:
                self._store.set(f"{_PREFIX}/failed/{self.rank}", f"{type(error).__name__}: {error}")
            except RuntimeError:
                return  # nobody is left to be told

    def _wait(self, place: str, store: _Signs) -> None:
        waiting = set(range(self.size)) - {self.rank}
        beats = dict.fromkeys(waiting, b"")
        seen = dict.fromkeys(waiting, time.monotonic())
        while waiting:
            for other in sorted(waiting):
                if store.check([f"{_PREFIX}/failed/{other}"]):
                    reason = store.get(f"{_PREFIX}/failed/{other}").decode()
                    raise ProcessLostError(_lost(f"process {other} of {self.size} failed", reason))
                if store.check([f"{_PREFIX}/{place}/{other}"]):
                    waiting.remove(other)
                    continue
                beat = store.get(f"{_PREFIX}/beat/{other}") if store.check([f"{_PREFIX}/beat/{other}"]) else b""
                if beat != beats[other]:
                    beats[other], seen[other] = beat, time.monotonic()
                elif time.monotonic() - seen[other] > self.timeout:
                    told = f"process {other} of {self.size} gave no sign of life for {self.timeout:g} s"
                    raise ProcessLostError(_lost(told))
            time.sleep(_LOOK)


@contextmanager
def joined(timeout: float) -> Iterator[Processes]:
    """The processes of this run, from torchrun's environment variables; one alone where there are none.

    Inside, a thread gives signs of life. Tensors are not exchanged, so gloo on the CPU does for GPUs as well.

    Args:
        timeout: seconds, see ``Processes``; also how long starting up may take.

    Raises:
        InvalidInputError: the environment is incomplete.
        ProcessLostError: the others did not come.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield Processes(timeout=timeout)
        return
    limit = timedelta(seconds=timeout)
    try:
        store, rank, size = next(rendezvous("env://", timeout=limit))
        distributed.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=limit)
    except ValueError as error:
        raise InvalidInputError(f"processes: expected torchrun's environment variables, got {error}") from error
    except RuntimeError as error:
        raise ProcessLostError(_lost("not all processes came together", error)) from error
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    processes = Processes(rank, size, local_rank, timeout, store)
    over = threading.Event()
    beating = threading.Thread(target=_beat, args=(store, rank, over), daemon=True)
    beating.start()
    try:
        yield processes
    except BaseException as error:
        processes.failed(error)
        raise
    finally:
        over.set()
        beating.join()
        distributed.destroy_process_group()


def _beat(store: _Signs, rank: int, over: threading.Event) -> None:
    count = 0
    while not over.is_set():
        try:
            store.set(f"{_PREFIX}/beat/{rank}", str(count))
        except RuntimeError:
            return  # the store is gone; whoever waits finds out
        count += 1
        over.wait(_BEAT)


@contextmanager
def _collective() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise ProcessLostError(_lost("another process went away while results were passed on", error)) from error


def _lost(what: str, reason: object = "") -> str:
    told = f" ({str(reason).partition(chr(10))[0]})" if reason else ""
    return f"processes: {what}{told}; finished chunks are kept, start the same command again to go on"
