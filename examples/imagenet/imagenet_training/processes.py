"""The processes of one run, as torchrun or SLURM started them, and the device of this one."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import distributed
from typing_extensions import Self

from captum_lipschitz.errors import CaptumLipschitzError

_LOOK_EVERY = 5.0  # seconds from one look at the stop file to the next: file systems of clusters are slow


class StartError(CaptumLipschitzError):
    """The processes cannot find each other."""


@dataclass(frozen=True)
class Processes:
    """This process's number, of how many, and its device."""

    rank: int
    size: int
    device: torch.device

    def meet(self) -> None:
        """Wait for the others."""
        if self.size > 1:
            distributed.barrier()

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum over all processes."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    def any(self, flag: bool) -> bool:  # noqa: FBT001 - the value itself
        """Whether the flag is set in any of them. Over the CPU: no accelerator has to wait for it."""
        return bool(self.total(torch.tensor(float(flag))))

    def agree(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        distributed.broadcast_object_list(box, device=self.device)
        return box[0]


@contextmanager
def joined(threads: int | None) -> Iterator[Processes]:
    """Join the processes that torchrun started (or SLURM, see slurm.sh); one by itself where nobody did.

    Raises:
        StartError: there are more on this machine than GPUs, the port is in use, or the others do not come.
    """
    if torch.cuda.is_available():
        _check_gpus(torch.cuda.device_count())
    if threads is not None:
        torch.set_num_threads(threads)
    size = int(os.environ.get("WORLD_SIZE", "1"))
    local = int(os.environ.get("LOCAL_RANK", "0"))
    device = torch.device("cuda", local) if torch.cuda.is_available() else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    if "WORLD_SIZE" not in os.environ:
        yield Processes(0, 1, device)
        return
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ.get('MASTER_ADDR', 'MASTER_ADDR?')}:{os.environ.get('MASTER_PORT', 'MASTER_PORT?')}"
        reason = str(error).partition("\n")[0]
        raise StartError(
            f"the processes cannot meet at {place} ({reason}); is the port in use by another run? "
            "Choose one with torchrun --master-port, or use --standalone on a single machine"
        ) from error
    try:
        yield Processes(distributed.get_rank(), size, device)
    finally:
        distributed.destroy_process_group()


def _check_gpus(found: int) -> None:
    """Each process has a GPU of its own: two of them on one would wait for each other in NCCL, or fail there."""
    here = max(int(os.environ.get("LOCAL_WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0")) + 1)
    if here > found:
        raise StartError(
            f"expected at most as many processes on a machine as it has GPUs, {found} that torch can use, got {here}; "
            f"start with torchrun --nproc-per-node {found}, or look at CUDA_VISIBLE_DEVICES"
        )


class StopRequest:
    """Whether this process is to end: SIGTERM, SIGUSR1, a file that somebody puts there, or torchrun was killed.

    A shell that started it and has ended is no reason: that is what nohup is for.

    Args:
        file: the one to look for, every few seconds; ``None`` for none. An old one is removed at the start.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._looked = file, time.monotonic()
        self._asked = False
        self._launcher = os.getppid() if "TORCHELASTIC_RUN_ID" in os.environ else None

    def __enter__(self) -> Self:
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        self._before = [(number, signal.signal(number, self._ask)) for number in (signal.SIGTERM, signal.SIGUSR1)]
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before:
            signal.signal(number, handler)

    @property
    def asked(self) -> bool:
        """Looked at between steps."""
        if self._file is not None and time.monotonic() - self._looked > _LOOK_EVERY:
            self._asked = self._asked or self._file.exists()
            self._looked = time.monotonic()
        return self._asked or self._launcher not in (None, os.getppid())

    def _ask(self, *_: object) -> None:
        self._asked = True


@contextmanager
def sole_owner(folder: Path, *, first: bool) -> Iterator[None]:
    """Within, no other run writes to the folder: one that was thought dead, say.

    Raises:
        StartError: another run does.
    """
    if not first:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StartError(
                f"output: another run is still writing to {folder}; end it, or take another folder"
            ) from error
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):  # a file system without locks
                raise
        yield
