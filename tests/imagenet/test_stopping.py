"""When a run ends by itself: asked to, or its launcher gone; not when the shell that started it ends."""

from __future__ import annotations

import os
import signal

import pytest
from imagenet_training.processes import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_asks_and_the_handlers_come_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.asked
        os.kill(os.getpid(), number)
        assert stop.asked
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("under_torchrun", [True, False])
def test_only_torchruns_end_is_a_reason_to_stop(under_torchrun: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if under_torchrun:
        monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    else:
        monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    with StopRequest() as stop:
        monkeypatch.setattr(os, "getppid", lambda: 1)  # what a process sees whose parent has ended
        assert stop.asked == under_torchrun
