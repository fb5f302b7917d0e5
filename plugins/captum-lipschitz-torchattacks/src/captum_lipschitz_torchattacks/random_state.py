"""The global random states that attacks of torchattacks draw from: seeded for a run, and put back afterwards."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from captum_lipschitz._trace import seed_torch, taking_turns, undone


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, torch (CPU and ``device``), NumPy and ``random`` draw from ``seed``; all states are as before afterwards.

    Some classes seed every CUDA device on their own, so those states are kept as well. Threads take turns.
    """
    with taking_turns():
        cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
        cpu, numpy_state, python_state = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002

        def restore() -> None:
            torch.set_rng_state(cpu)
            np.random.set_state(numpy_state)  # noqa: NPY002
            random.setstate(python_state)
            if cuda:
                torch.cuda.set_rng_state_all(cuda)

        with undone(restore):
            seed_torch(seed, device)
            np.random.seed(seed)  # noqa: NPY002 - torchattacks draws from the global state
            random.seed(seed)
            yield
