"""Leaving no trace: what is changed for a while is put back, also where Ctrl-C comes, and in several threads at once.

Python raises ``KeyboardInterrupt`` between any two instructions, in a ``finally`` block too. So whatever is undone here
can be undone twice, and is: a first time that is interrupted is made good by the second.

Torch's global random state belongs to the whole program. Who seeds it and draws from it (``seeded``) does so while no
other thread does; who only wants it back afterwards (``no_trace``) shares it with the other threads within, of whom the
first saves it and the last restores it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn

_TURN = threading.RLock()  # held while the global random state is seeded and drawn from, saved, or restored
_THREAD = threading.local()  # ``innermost``: what this thread will restore first
_WITHIN: list[_Kept] = []  # the outermost of each thread, in the order in which they came


@contextmanager
def no_trace(model: Callable[..., object], inputs: Tensor, *, evaluation: bool = True) -> Iterator[None]:
    """Work with a model and leave it as it was, also on an error or Ctrl-C.

    Inside, gradients are enabled. Restored on the way out: train or eval mode of every submodule, buffers (BatchNorm
    statistics) that a forward pass in train mode would have moved, grad mode, and the global random state.

    Two threads may do so with two models at once. A model that itself draws from the global random state draws from
    the same one as the other thread's: its draws then depend on timing.

    Args:
        model: a module, or a function (of which only the global state around it can be kept).
        inputs: tells which device's random state to keep.
        evaluation: switch the model to evaluation mode inside.
    """
    kept = _Kept(model, inputs.device, evaluation=evaluation)
    try:
        try:
            kept.begin()
            left_inference = torch.inference_mode(mode=False) if torch.is_inference_mode_enabled() else nullcontext()
            with left_inference, torch.enable_grad():
                yield
        finally:
            kept.restore()
    finally:
        kept.restore()


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """At the end ``undo()``, which must bear being called twice: where Ctrl-C comes into the first call."""
    try:
        try:
            yield
        finally:
            undo()
    finally:
        undo()


@contextmanager
def undone_on_error(undo: Callable[[], object]) -> Iterator[None]:
    """On an error or Ctrl-C ``undo()``, which must bear being called twice."""
    finished = False

    def back() -> None:
        if not finished:
            undo()

    with undone(back):
        yield
        finished = True


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Inside, the global random state of the CPU and of one device begins at ``seed``, and no other thread seeds it.

    Afterwards it is as before. Threads that want this at the same time take turns.
    """
    with _TURN:
        states = random_states(device)
        with undone(lambda: set_random_states(states)):
            seed_torch(seed, device)
            yield


@contextmanager
def taking_turns() -> Iterator[None]:
    """Inside, no other thread seeds the global random states: for who seeds them by other means than ``seeded``."""
    with _TURN:
        yield


def seed_torch(seed: int, device: torch.device) -> None:
    """Seed the global random state of the CPU and one device, within what restores it: ``seeded``, or an attack."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)


def random_states(device: torch.device) -> dict[torch.device, Tensor]:
    """The global random states of the CPU, and of ``device`` where it has one."""
    with _TURN:
        states = {torch.device("cpu"): torch.get_rng_state()}
        if device.type == "cuda":
            states[device] = torch.cuda.get_rng_state(device)
        return states


def set_random_states(states: dict[torch.device, Tensor]) -> None:
    """Put back what ``random_states`` has returned."""
    with _TURN:
        for device, state in states.items():
            if device.type == "cpu":
                torch.set_rng_state(state)
            else:
                torch.cuda.set_rng_state(state, device)


class _Kept:
    """What ``no_trace`` puts back: a model's modes and buffers, and the state of thread and program around it.

    Attributes:
        states: the global random states, by device.
        outer: what this thread had begun before, and restores after it.
    """

    def __init__(self, model: object, device: torch.device, *, evaluation: bool) -> None:
        modules = list(model.modules()) if isinstance(model, nn.Module) else []
        # Frozen TorchScript has no mode.
        self._modes = [(module, module.training) for module in modules if hasattr(module, "training")]
        self._evaluation = evaluation
        moved = not evaluation and any(training for _, training in self._modes)
        self._buffers = [
            (module, name, buffer, buffer.detach().clone())
            for module in (modules if moved else ())
            for name, buffer in module.named_buffers(recurse=False)
        ]
        self._gradients = torch.is_grad_enabled()
        self._restored = False
        self.outer: _Kept | None = getattr(_THREAD, "innermost", None)
        self.states = random_states(device)

    def begin(self) -> None:
        with _TURN:
            if self.outer is None:
                if _WITHIN:  # another thread may have drawn since it came
                    self.states |= {d: s for d, s in _WITHIN[0].states.items() if d in self.states}
                _WITHIN.append(self)
        _THREAD.innermost = self
        if self._evaluation:
            for module, training in self._modes:
                if training:
                    module.training = False

    def restore(self) -> None:
        """Put everything back, and first what was begun within and never ended. May be called more than once."""
        if self._restored:
            return
        for inner in self._begun_within():
            inner.restore()
        for module, training in self._modes:
            if module.training != training:
                module.training = training
        for module, name, buffer, before in self._buffers:
            buffer.data.copy_(before)  # by ``data``: a graph in flight may hold the buffer, and stays valid
            setattr(module, name, buffer)  # also where a forward pass put another tensor in its place
        torch.set_grad_enabled(mode=self._gradients)
        self._restore_random_states()
        _THREAD.innermost = self.outer
        self._restored = True

    def _begun_within(self) -> list[_Kept]:
        """Those that Ctrl-C has kept from being restored in their turn, the innermost first."""
        found, kept = [], getattr(_THREAD, "innermost", None)
        while kept is not None and kept is not self:
            found.append(kept)
            kept = kept.outer
        return found if kept is self else []

    def _restore_random_states(self) -> None:
        with _TURN:
            if self in _WITHIN:
                _WITHIN.remove(self)
            others = _WITHIN if self.outer is None else ()
            set_random_states(
                {d: state for d, state in self.states.items() if not any(d in other.states for other in others)}
            )
