"""The device to work on, and settings of torch under which the same work gives the same bits."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from captum_lipschitz.errors import InvalidInputError


def pick_device(name: str, local_rank: int) -> torch.device:
    """The device to work on; a GPU without an index becomes the process's own.

    Args:
        name: of torch, or ``"auto"`` for a GPU where there is one and else the CPU.
        local_rank: of the process on its machine; GPUs are shared where there are fewer.

    Raises:
        InvalidInputError: torch cannot use it here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.is_available():
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"device: expected one that torch can use here, got {name!r} ({reason})") from error


def described(device: torch.device) -> dict[str, str]:
    """What the figures' last bits may depend on besides the settings."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {"device": name, "python": platform.python_version()}


@contextmanager
def repeatable(device: torch.device, threads: int) -> Iterator[None]:
    """Inside, the same work gives the same bits, as far as torch can (it warns where it cannot); restored afterwards.

    Args:
        device: that is worked on.
        threads: of the CPU.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        gpus = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices=gpus), _repeatable_gpu(used=bool(gpus)):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _repeatable_gpu(*, used: bool) -> Iterator[None]:
    if not used:
        yield
        return
    cudnn = torch.backends.cudnn
    before = cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32
    algorithms = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read at the first multiplication
    try:
        cudnn.deterministic, cudnn.benchmark = True, False
        cudnn.allow_tf32 = False  # convolutions of float32 in float32
        torch.use_deterministic_algorithms(mode=True, warn_only=True)
        yield
    finally:
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before
        torch.use_deterministic_algorithms(mode=algorithms, warn_only=warn_only)
