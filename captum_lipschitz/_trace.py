"""Leaving no trace: what is changed for a while is put back, also where Ctrl-C comes, and in several threads at once.

Python raises ``KeyboardInterrupt`` between any two instructions, in a ``finally`` block too. So whatever is undone here
can be undone twice, and is: a first time that is interrupted is made good by the second.

It may come in Python's own code between a block and what we do at its end, which then does not run. So each thread
notes what it still has to undo, and who undoes something begins with what was left above it. Around the outermost there
is ``settled``, which changes nothing and so cannot be torn itself.

Torch's global random state belongs to the whole program. Who seeds it and draws from it (``seeded``) does so while no
other thread does; who only wants it back afterwards (``no_trace``) shares it with the other threads within, of whom the
first saves it and the last restores it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn

_TURN = threading.RLock()  # held while the global random state is seeded and drawn from, saved, or restored
_THREAD = threading.local()  # ``owed``: what this thread has to undo, the last first; ``innermost``: its last ``_Kept``
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
    with undone(kept.restore):
        kept.begin()
        yield


@contextmanager
def undone(undo: Callable[[], object]) -> Iterator[None]:
    """At the end ``undo()``, which must bear being called twice: where Ctrl-C comes into the first call."""
    owed = _Owed(undo)
    ended = False
    try:
        try:
            owed.note()
            yield
            ended = True
        finally:
            owed.settle(alone=ended)
    finally:
        owed.settle(alone=ended)


def settled() -> AbstractContextManager[None]:
    """Around what undoes something at its end, so that it is undone wherever Ctrl-C comes.

    As in ``with settled(), no_trace(model, inputs):``. Of several, only the outermost of a call needs it.
    """
    return undone(_nothing)


def outside_inference_mode() -> AbstractContextManager[object]:
    """Inside, tensors are made that can take part in gradients, also where the caller is in inference mode."""
    return torch.inference_mode(mode=False) if torch.is_inference_mode_enabled() else nullcontext()


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


class _Owed:
    """What a thread still has to undo, and where among the rest of it."""

    def __init__(self, undo: Callable[[], object]) -> None:
        self.undo = undo
        self._all: list[_Owed] = _THREAD.__dict__.setdefault("owed", [])

    def note(self) -> None:
        self._all.append(self)

    def settle(self, *, alone: bool) -> None:
        """Undo it, unless that is done; first, if not ``alone``, what was begun after it and never ended."""
        while self in self._all:
            last = self if alone else self._all[-1]
            try:
                last.undo()
            except Exception:  # it will not be better the second time
                self._all.remove(last)
                raise
            self._all.remove(last)


def _nothing() -> None:
    """What ``settled`` undoes."""


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
        self._inference = torch.inference_mode(mode=False) if torch.is_inference_mode_enabled() else None
        self._restored = False
        self.outer: _Kept | None = getattr(_THREAD, "innermost", None)
        self.states = random_states(device)

    def begin(self) -> None:
        with _TURN:
            if self.outer is None:
                if _WITHIN:  # another thread may have drawn since it came
                    self._take_states(_WITHIN[0])
                _WITHIN.append(self)
        _THREAD.innermost = self
        if self._evaluation:
            for module, training in self._modes:
                if training:
                    module.training = False
        # No context managers within that of ours: one that is torn would change the mode once more when it is dropped.
        if self._inference is not None:
            self._inference.__enter__()
        torch.set_grad_enabled(mode=True)

    def restore(self) -> None:
        """Put everything back. May be called more than once."""
        if self._restored:
            return
        for module, training in self._modes:
            if module.training != training:
                module.training = training
        for module, name, buffer, before in self._buffers:
            buffer.data.copy_(before)  # by ``data``: a graph in flight may hold the buffer, and stays valid
            setattr(module, name, buffer)  # also where a forward pass put another tensor in its place
        if self._inference is not None and not torch.is_inference_mode_enabled():
            self._inference.__exit__(None, None, None)
        torch.set_grad_enabled(mode=self._gradients)
        # Within the caller's autocast some torch versions (2.6) go on with weights that were cast without gradients.
        torch.clear_autocast_cache()
        self._restore_random_states()
        _THREAD.innermost = self.outer
        self._restored = True

    def _restore_random_states(self) -> None:
        with _TURN:
            if self in _WITHIN:
                _WITHIN.remove(self)
            set_random_states(self._states_without(_WITHIN if self.outer is None else ()))

    # No comprehension within a ``with`` block: Python 3.12 has it there in place, where an interruption kept the lock.
    def _states_without(self, others: Iterable[_Kept]) -> dict[torch.device, Tensor]:
        kept = {device for other in others for device in other.states}
        return {device: state for device, state in self.states.items() if device not in kept}

    def _take_states(self, other: _Kept) -> None:
        self.states |= {device: state for device, state in other.states.items() if device in self.states}
