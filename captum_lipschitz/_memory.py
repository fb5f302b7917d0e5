"""Out of memory: the same work on half as many images at once."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

import torch
from torch import nn

from captum_lipschitz._trace import random_states, set_random_states, undone
from captum_lipschitz.errors import CaptumLipschitzWarning

T = TypeVar("T")

_SIGNS = (
    "DefaultCPUAllocator: can't allocate memory",
    "DefaultCPUAllocator: not enough memory",
    "CUDA error: out of memory",
    "_ALLOC_FAILED",  # of cuBLAS, cuFFT and others
    "_ALLOCATION_FAILED",  # of cuDNN 9, on the host or the device
    "backend out of memory",
)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass
class _Room:
    """What one call has learnt of the memory: how many images at once it has room for, by the kind of work."""

    fitting: dict[str, int] = field(default_factory=dict)
    warned: bool = False
    divided: bool = True


_ROOM: ContextVar[_Room | None] = ContextVar("room", default=None)


@contextmanager
def one_room() -> Iterator[None]:
    """Inside, what fitted into memory is remembered, and warned of once; also a decorator.

    Within another it changes nothing.
    """
    if _ROOM.get() is not None:
        yield
        return
    with undone(lambda: _ROOM.set(None)):
        _ROOM.set(_Room())
        yield


@contextmanager
def undivided() -> Iterator[None]:
    """Inside, out of memory is an error: nothing is halved, nor by what is called there."""
    before = _ROOM.get()
    with undone(lambda: _ROOM.set(before)):
        _ROOM.set(_Room(divided=False))
        yield


def in_chunks(
    work: Callable[[int, int], T],
    images: int,
    *,
    what: str,
    device: torch.device,
    at_once: int | None = None,
    halve: bool = True,
) -> list[T]:
    """``work(start, stop)`` over all images; where memory runs out, half as many at once from there on.

    An answer is that of its chunk: bit for bit what the work gives where it is cut in the same places from the start.
    What a failed try has drawn from torch's global random state is drawn again.

    Args:
        work: on the images from ``start`` to ``stop``; it may be called again for some of them.
        images: their number.
        what: the kind of work, for the message; kinds of different names have room for different numbers.
        device: whose random state is kept, and whose memory is freed.
        at_once: images at once to begin with; ``None`` for all.
        halve: not where an image's answer depends on the others (``takes_batch_statistics``): then, and within
            ``undivided``, the error is raised.

    Returns:
        The answers, in the images' order.

    Raises:
        RuntimeError, MemoryError: memory runs out with a single image; of the type that was met, with all that was
            tried.

    Warns:
        CaptumLipschitzWarning: once in a call, when fewer images have fitted.
    """
    with one_room():
        room = _ROOM.get() or _Room()
        halve = halve and room.divided
        size = min(images, at_once or images, room.fitting.get(what, images))
        answers: list[T] = []
        tried: list[int] = []
        start = 0
        while start < images:
            stop = min(start + size, images)
            answer, failure = _attempt(work, start, stop, device) if halve else ([work(start, stop)], None)
            if failure is None:
                answers += answer
                start = stop
                _tell(room, what, tried, size)
                tried = []
                continue
            tried.append(stop - start)
            if stop - start == 1:
                raise _exhausted(failure, what, tried)
            size = room.fitting[what] = (stop - start) // 2
            _free()
    return answers


def as_many_as_fit(work: Callable[[int], T], images: int, *, what: str, device: torch.device) -> T:
    """``work(n)`` on the first n images: all of them, or where memory runs out half as many, down to one.

    See ``in_chunks``, also for what is raised and warned of.
    """
    with one_room():
        room = _ROOM.get() or _Room()
        size, tried = images, list[int]()
        while True:
            answer, failure = _attempt(lambda _, stop: work(stop), 0, size, device)
            if failure is None:
                _tell(room, what, tried, size)
                return answer[0]
            tried.append(size)
            if size == 1:
                raise _exhausted(failure, what, tried)
            size //= 2
            _free()


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory has run out, and fewer images may fit."""
    if getattr(error, "captum_lipschitz_tried_one", False):
        return False
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in _SIGNS)


def takes_batch_statistics(model: object) -> bool:
    """Whether BatchNorm is in train mode, or keeps no averages to use in the other one.

    Then an image's answer depends on its neighbours, and no batch is halved.
    """
    modules = model.modules() if isinstance(model, nn.Module) else ()
    norms = (module for module in modules if isinstance(module, _BATCH_NORMS))
    return any(norm.training or norm.running_mean is None for norm in norms)


def _attempt(
    work: Callable[[int, int], T], start: int, stop: int, device: torch.device
) -> tuple[list[T], Exception | None]:
    """The answer, or why there is no room for it; of several images without the frames that hold on to the memory."""
    states = random_states(device)
    try:
        return [work(start, stop)], None
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        if stop - start == 1:
            return [], error
        failure: Exception = MemoryError(str(error))
    set_random_states(states)
    return [], failure


def _exhausted(failure: Exception, what: str, tried: list[int]) -> Exception:
    kinds = (torch.OutOfMemoryError, MemoryError, RuntimeError)
    kind = next(kind for kind in kinds if isinstance(failure, kind))
    numbers = ", ".join(map(str, tried))
    error = kind(f"{what}: out of memory with one image at once (tried {numbers}); {failure}")
    error.captum_lipschitz_tried_one = True  # type: ignore[union-attr]
    error.__cause__ = failure
    return error


def _tell(room: _Room, what: str, tried: list[int], size: int) -> None:
    if tried and not room.warned:
        room.warned = True
        warnings.warn(
            f"{what}: out of memory with {', '.join(map(str, tried))} images at once; going on with {size}. Chunks of "
            f"{size} from the start give the same answers and save the failed tries.",
            CaptumLipschitzWarning,
            stacklevel=4,
        )


def _free() -> None:
    """Give back what failed tries have left: graphs in reference cycles, and the allocator's blocks of odd sizes."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
