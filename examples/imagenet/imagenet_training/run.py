"""A run from beginning to end: what train.py and finetune.py start."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save
from torch.utils.data import Dataset

from captum_lipschitz._files import write_whole
from captum_lipschitz._reading import one_line
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError, ModelOutputError
from imagenet_training.checkpoint import Checkpoints
from imagenet_training.pictures import Pictures, SyntheticPictures, TrainingOrder, loaded
from imagenet_training.processes import Processes, StopRequest, joined, sole_owner
from imagenet_training.progress import Progress, as_json
from imagenet_training.recalibration import recalibrate
from imagenet_training.recipe import Recipe, as_entries
from imagenet_training.training import Training
from imagenet_training.validation import median_radius, quick_ara, validate, whole_network


class DivergedError(CaptumLipschitzError):
    """The loss is not finite any more."""


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where a recipe runs, and what it writes. None of it changes the trained network.

    Attributes:
        output: folder for checkpoints, logs, ``weights.safetensors``, ``recipe.json``, ``results.json``. A run that
            finds a file ``stop`` there saves and ends.
        data: folder with the two below; ``None`` with ``synthetic``.
        train: folder of class folders within ``data``.
        validation: likewise.
        synthetic: number of images that are noise, instead of data.
        classes: of synthetic images.
        workers: that decode images, for each process.
        threads: of the CPU, for each process; ``None`` is torch's default.
        resume: go on from the last checkpoint, if there is one.
        checkpoint_every: steps from one to the next; ``None`` at the end of each epoch.
        keep: number of checkpoints that stay.
        log_every: steps from one line to the next.
        validate_every: epochs from one validation to the next.
        ara_images: of the quick ARA at each validation; 0 for none.
        tensorboard: write its files too.
        stop_after: steps after which to stop as if asked to, for measurements; ``None`` for none.
    """

    output: Path
    data: Path | None = None
    train: str = "train"
    validation: str = "val"
    synthetic: int | None = None
    classes: int = 1000
    workers: int = 8
    threads: int | None = None
    resume: bool = False
    checkpoint_every: int | None = None
    keep: int = 2
    log_every: int = 50
    validate_every: int = 1
    ara_images: int = 64
    tensorboard: bool = False
    stop_after: int | None = None


def start(recipe: Recipe, run: Run) -> int:
    """Train; the exit status. An error is one line, and ends all processes."""
    try:
        with (
            joined(run.threads) as processes,
            sole_owner(run.output, first=processes.rank == 0),
            StopRequest(run.output / "stop" if processes.rank == 0 else None) as stop,
        ):
            _train(recipe, run, processes, stop)
    except (CaptumLipschitzError, OSError) as error:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: {one_line(_told(error))}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write(f"{Path(sys.argv[0]).name}: interrupted; --resume goes on from the last checkpoint\n")
        return 130
    return 0


def _train(recipe: Recipe, run: Run, processes: Processes, stop: StopRequest) -> None:
    train, validation, classes = _data(recipe, run)
    data = {"images": len(train), "files": train.digest}
    checkpoints = Checkpoints(run.output, data=data, keep=run.keep)
    if checkpoints.found() and not run.resume:
        raise InvalidInputError(f"output: expected a folder without checkpoints, or --resume, got {run.output}")
    plan = TrainingOrder(len(train), recipe, start=0, rank=processes.rank, processes=processes.size)
    training = Training(recipe, len(classes), steps_per_epoch=plan.steps_per_epoch, processes=processes)
    resumed = checkpoints.restore(training) if run.resume else None
    if processes.rank == 0:
        _write_json(run.output / "recipe.json", {"recipe": as_entries(recipe), "classes": classes})
    progress = Progress(
        run.output,
        first=processes.rank == 0,
        start=training.step,
        steps=plan.steps,
        images_per_step=recipe.batch_size,
        tensorboard=run.tensorboard,
    )
    progress.say(
        resumed or f"{recipe.model}, {plan.steps} steps of {recipe.batch_size} images, {processes.size} processes"
    )
    try:
        whole = _epochs(training, run, train, validation, checkpoints, progress, stop)
        if whole:
            _finish(training, run, train, validation, progress)
    finally:
        progress.close()


def _data(recipe: Recipe, run: Run) -> tuple[Any, Any, list[str]]:
    if run.synthetic is not None:
        noise = SyntheticPictures(run.synthetic, run.classes, recipe.resolution)
        return noise, noise, noise.classes
    if run.data is None:
        raise InvalidInputError("data: expected a folder, or --synthetic, got neither")
    train = Pictures(run.data / run.train, recipe, train=True)
    validation = Pictures(run.data / run.validation, recipe, train=False)
    if train.classes != validation.classes:
        only = sorted(set(train.classes) ^ set(validation.classes))
        raise InvalidInputError(
            f"data: expected the same class folders in {run.train} and {run.validation}, got {only[:5]} in one alone"
        )
    return train, validation, train.classes


def _epochs(
    training: Training,
    run: Run,
    train: Dataset[Any],
    validation: Dataset[Any],
    checkpoints: Checkpoints,
    progress: Progress,
    stop: StopRequest,
) -> bool:
    """All steps that are left; ``False`` where the run was asked to stop before."""
    recipe, processes = training.recipe, training.processes
    order = TrainingOrder(len(train), recipe, start=training.step, rank=processes.rank, processes=processes.size)  # type: ignore[arg-type]
    every = run.checkpoint_every or order.steps_per_epoch
    last = order.steps if run.stop_after is None else min(order.steps, training.step + run.stop_after)
    for images, labels, _ in _waited(loaded(train, order, workers=run.workers, pin=_pins(processes)), progress):
        try:
            figures = training.take_step(images, labels)
        except ModelOutputError as error:
            raise _diverged(training) from error
        stopping = processes.any(stop.asked) or training.step == last < order.steps
        if stopping or training.step % run.log_every == 0 or training.step == last:
            _log(training, progress, figures, images, labels)
        began = time.monotonic()
        if training.step % every == 0 or stopping or training.step == order.steps:
            if not training.finite():
                raise _diverged(training)
            checkpoints.save(training)
        if training.step % (order.steps_per_epoch * run.validate_every) == 0 and training.step < order.steps:
            _measure(training, run, validation, progress)
        progress.not_training(time.monotonic() - began)
        if stopping:
            progress.say(f"stopped after step {training.step} of {order.steps}; the same command with --resume goes on")
            return False
    return True


def _waited(batches: Any, progress: Progress) -> Iterator[Any]:
    began = time.monotonic()
    for batch in batches:
        progress.waited(time.monotonic() - began)
        yield batch
        began = time.monotonic()


def _told(error: BaseException) -> str:
    """An error's message; a loader's worker hands its error on with the whole traceback as the text."""
    text = str(error)
    return text.strip().splitlines()[-1].partition("Error: ")[2] if text.startswith("Caught ") else text


def _log(training: Training, progress: Progress, figures: Any, images: Any, labels: Any) -> None:
    told = {name: float(value) for name, value in figures._asdict().items()}
    if not math.isfinite(told["loss"]):
        raise _diverged(training)
    began = time.monotonic()
    radius = median_radius(training, images, labels)
    if radius is not None:
        told["median_radius"] = radius
    progress.not_training(time.monotonic() - began)
    progress.interval(training.step, {**told, "learning_rate": training.learning_rate()})


def _diverged(training: Training) -> DivergedError:
    return DivergedError(
        f"step {training.step}: logits, loss or weights are not finite; take a smaller learning_rate, "
        "a longer warm-up or a clip_norm, and with a penalty a smaller gain"
    )


def _measure(training: Training, run: Run, validation: Any, progress: Progress) -> dict[str, float]:
    size = max(1, training.recipe.batch_size // training.processes.size)
    found = validate(training, validation, len(validation), workers=run.workers, batch_size=size)
    figures = {"validation_accuracy": found.accuracy, "validation_loss": found.loss, "validation_images": found.images}
    if run.ara_images:
        area = quick_ara(training, validation, len(validation), images=run.ara_images)
        if area is not None:
            figures |= {"quick_ara": area.area, "quick_ara_images": min(run.ara_images, len(validation))}
    training.processes.meet()
    progress.note(training.step, figures)
    progress.say("validation  " + "  ".join(f"{name} {value:.4g}" for name, value in figures.items()))
    return figures


def _finish(training: Training, run: Run, train: Any, validation: Any, progress: Progress) -> None:
    if training.rounding is not None:
        recalibrate(training, train, workers=run.workers)
    figures = _measure(training, run, validation, progress)
    network = whole_network(training)
    if network is not None:
        state = {name: tensor.cpu().contiguous() for name, tensor in network.model.state_dict().items()}  # type: ignore[union-attr]
        write_whole(run.output / "weights.safetensors", save(state))
        _write_json(run.output / "results.json", {"steps": training.step, **as_json(figures)})
        progress.say(f"written: {run.output / 'weights.safetensors'}")


def _pins(processes: Processes) -> bool:
    return processes.device.type == "cuda"


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())
