"""What a run says while it runs: a line, a TensorBoard entry and a line of JSON for each interval."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from captum_lipschitz.errors import MissingDependencyError


class Progress:
    """Written by the first process; the others' does nothing.

    Args:
        folder: of the run: ``log.jsonl``, and ``tensorboard/`` where it is asked for.
        first: whether this is the first process.
        start: steps taken already.
        steps: steps in all.
        images_per_step: of all processes.
        tensorboard: whether to write TensorBoard's files too.

    Raises:
        MissingDependencyError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self, folder: Path, *, first: bool, start: int, steps: int, images_per_step: int, tensorboard: bool
    ) -> None:
        self._first, self._steps, self._images = first, steps, images_per_step
        self._writer = _tensorboard(folder / "tensorboard", start) if first and tensorboard else None
        self._file = (folder / "log.jsonl").open("a", encoding="utf-8") if first else None
        self._since, self._began, self._waited, self._spent = start, time.monotonic(), 0.0, 0.0

    def waited(self, seconds: float) -> None:
        """Count time in which the next batch was waited for."""
        self._waited += seconds

    def not_training(self, seconds: float) -> None:
        """Leave time out of the speed: validation, checkpoints."""
        self._spent += seconds

    def interval(self, step: int, figures: dict[str, float]) -> None:
        """After ``step`` steps: the figures, with speed, waiting and time left since the last interval."""
        if not self._first:
            return
        now = time.monotonic()
        seconds = max(1e-9, now - self._began - self._spent)
        per_step = seconds / max(1, step - self._since)
        speed = {
            "images_per_second": self._images / per_step,
            "waiting_for_data": min(1.0, self._waited / seconds),
        }
        left = timedelta(seconds=round(per_step * (self._steps - step)))
        self.note(step, {**figures, **speed})
        told = "  ".join(f"{name} {value:.4g}" for name, value in figures.items())
        self.say(
            f"step {step}/{self._steps}  {told}  {speed['images_per_second']:.0f} images/s"
            f"  waiting {speed['waiting_for_data']:.0%}  {left} left"
        )
        self._since, self._began, self._waited, self._spent = step, now, 0.0, 0.0

    def note(self, step: int, figures: dict[str, float]) -> None:
        """Figures of one step, for the files alone."""
        if self._file is not None:
            self._file.write(json.dumps({"step": step, **as_json(figures)}) + "\n")
            self._file.flush()
        if self._writer is not None:
            for name, value in figures.items():
                self._writer.add_scalar(name, value, step)

    def say(self, text: str) -> None:
        """One line, from the first process."""
        if self._first:
            sys.stdout.write(text + "\n")
            sys.stdout.flush()

    def close(self) -> None:
        """Write out what is buffered."""
        for file in (self._file, self._writer):
            if file is not None:
                file.close()


def as_json(figures: Mapping[str, float]) -> dict[str, float | None]:
    """Figures as JSON holds them: ``None`` for an infinite one, as an ARA is where nothing was found."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def _tensorboard(folder: Path, start: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError(
            f"--tensorboard: it cannot be imported ({error}); install it with: python -m pip install tensorboard"
        ) from error
    return SummaryWriter(str(folder), purge_step=start + 1)  # what an interrupted run wrote beyond it is taken back
