"""The job: every chunk measured once, by whichever process, and all of them put together."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import check_labels, check_logits
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Attack
from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, as_norm
from captum_lipschitz.measure.attacks import attack_versions, make_attack
from captum_lipschitz.measure.chunks import Chunk, ChunkStore, spans
from captum_lipschitz.measure.data import ImageData, check_folder_classes, open_data, starting_images
from captum_lipschitz.measure.fingerprints import identity_of
from captum_lipschitz.measure.machine import described, pick_device, repeatable
from captum_lipschitz.measure.models import load_model
from captum_lipschitz.measure.outputs import remove_results, write_results
from captum_lipschitz.measure.processes import Processes, joined
from captum_lipschitz.measure.settings import AraSettings, differences, version_of
from captum_lipschitz.metrics import AraResult
from captum_lipschitz.metrics.ara import CHECKED, chance_accuracy, summarise
from captum_lipschitz.metrics.area import area
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.metrics.masking import find_doubts
from captum_lipschitz.metrics.measurement import Measurement

_PACKAGES = ("captum-lipschitz", "torch", "torchvision", "pillow")


@one_room()
def run_ara(
    settings: AraSettings, *, say: Callable[[str], None] = print, show_progress: bool = True
) -> AraResult | None:
    """Measure a model's Accuracy-Robustness Area, going on from what an earlier run of the same settings left.

    Started by torchrun, the processes share the chunks among them. Distances are equal to the bit for any number of
    processes and of interruptions, on the same kind of machine.

    Args:
        settings: see ``AraSettings``. ``chunks/``, ``settings.json``, ``ara.json``, ``distances.csv`` and ``curve.png``
            are written to ``settings.output``.
        say: takes the result's line, and its doubts.
        show_progress: progress bars on the error stream, by process 0.

    Returns:
        The result, for process 0; ``None`` for the others.

    Raises:
        InvalidInputError, InvalidTypeError, UnknownNameError, MissingDependencyError: for settings, weights or images
            that cannot be used; most before any work.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.
        ProcessLostError: another process died.
        OSError: the disk is full, or gone.
    """
    with joined(settings.timeout) as processes:
        device = pick_device(settings.device, processes.local_rank)
        with repeatable(device, settings.threads):
            return _run(settings, processes, device, say=say, show_progress=show_progress and processes.rank == 0)


def _run(
    settings: AraSettings,
    processes: Processes,
    device: torch.device,
    *,
    say: Callable[[str], None],
    show_progress: bool,
) -> AraResult | None:
    began = time.monotonic()
    data = open_data(settings)
    measurement, classes = _measurement(settings, data, device)
    identity = _identity(settings, data, measurement)
    store = _claimed(settings, identity, processes)
    mine = _my_chunks(store, data, settings, processes)
    _check_files(data, mine, show_progress=show_progress)
    guessing = chance_accuracy(settings.chance, data.labels, classes)
    _work(measurement, data, store, mine, guessing=guessing, show_progress=show_progress)
    gathered = processes.gather("done", mine)
    if gathered is None:
        return None
    done = dict(sorted((index, chunk) for share in gathered for index, chunk in share.items()))
    chunks = [(span, chunk) for span, chunk in done.values() if chunk is not None]
    doubts = _doubts(settings, measurement, data, [chunk.part.distances for _, chunk in chunks])
    result = summarise([chunk.part for _, chunk in chunks], measurement, chance=settings.chance, doubts=doubts)
    store.check()  # another run may have begun anew here meanwhile
    say(str(result))
    about = {
        "settings": {**identity, **_places(settings)},
        "seconds": sum(chunk.seconds for _, chunk in chunks),
        "seconds_of_this_run": time.monotonic() - began,
        "processes": processes.size,
        "machine": described(device),
    }
    write_results(settings.output, result, about, name=data.name, say=say)
    return result


_Mine = dict[int, tuple[tuple[int, int], Chunk | None]]
"""A process's chunks: start and stop, and the answers where they are there already."""


def _measurement(settings: AraSettings, data: ImageData, device: torch.device) -> tuple[Measurement, int]:
    """What is to be run, tried on one image; and the number of classes."""
    attack = make_attack(settings)
    norm, bounds = as_norm(settings.norm or "rmse"), Bounds.of(settings.bounds)
    if isinstance(attack, Attack):
        norm, bounds = attack.norm, attack.bounds
        # The same images for every chunk and process: an answer may depend on them.
        attack = attack.starting_from(starting_images(data).to(device))
    model = load_model(
        settings.model, weights=settings.weights, mean=settings.mean, std=settings.std, device=device
    )  # fmt: skip
    measurement = Measurement(
        model=model,
        attack=attack,
        criterion=as_criterion(settings.criterion),
        norm=norm,
        bounds=bounds,
        device=device,
    )
    classes = _number_of_classes(model, data.images(0, 1).to(device))
    check_labels(data.labels, len(data.labels), classes, name="data: labels")
    check_folder_classes(data, settings, classes)
    return measurement, classes


def _number_of_classes(model: Model, image: Tensor) -> int:
    try:
        with settled(), no_trace(model, image), torch.no_grad():
            return check_logits(model(image), 1).shape[1]
    except RuntimeError as error:
        shape, reason = tuple(image.shape[1:]), str(error).partition("\n")[0]
        raise InvalidInputError(
            f"model: expected one that takes images of shape {shape}, got RuntimeError: {reason}"
        ) from error


def _identity(settings: AraSettings, data: ImageData, measurement: Measurement) -> dict[str, Any]:
    """Everything that the distances depend on: an earlier run's chunks count where all of it is the same."""
    device = measurement.device or torch.device("cpu")
    return {
        **settings.identity(),
        **identity_of(settings.model, measurement.model, data, device),
        "device": device.type,
        "threads": settings.threads if device.type == "cpu" else None,
        "versions": {name: version_of(name) for name in _PACKAGES} | attack_versions(settings.attack),
    }


def _claimed(settings: AraSettings, identity: dict[str, Any], processes: Processes) -> ChunkStore:
    """The folder for chunks, found by all processes to be this run's."""
    for rank, other in enumerate(processes.exchange("identity", identity)):
        if other != identity:
            told = "; ".join(differences(other, identity))
            raise InvalidInputError(
                f"processes: expected all to have the same settings, process {rank} differs: {told}"
            )
    store = ChunkStore(settings.output, identity)
    if settings.restart and processes.local_rank == 0:
        store.clear()
        remove_results(settings.output)
    processes.meet("cleared")
    store.claim()
    return store


def _my_chunks(store: ChunkStore, data: ImageData, settings: AraSettings, processes: Processes) -> _Mine:
    """This process's share: of the chunks that nobody has, every ``size``-th; and those it alone is to bring along.

    Each machine may see a folder of its own: of the processes that see a chunk, the first one brings it.
    """
    cuts = dict(enumerate(spans(len(data.labels), settings.chunk_size)))
    there = {i: chunk for i, (start, stop) in cuts.items() if (chunk := store.load(i, stop - start)) is not None}
    owner: dict[int, int] = {}
    for rank, seen in enumerate(processes.exchange("found", sorted(there))):
        for index in seen:
            owner.setdefault(index, rank)
    missing = [index for index in cuts if index not in owner]
    mine = {index: (cuts[index], None) for index in missing[processes.rank :: processes.size]}
    return mine | {i: (cuts[i], chunk) for i, chunk in there.items() if owner[i] == processes.rank}


def _check_files(data: ImageData, mine: _Mine, *, show_progress: bool) -> None:
    todo = [span for span, chunk in mine.values() if chunk is None]
    for start, stop in tqdm(todo, desc="Checking files", unit="chunk", disable=not show_progress, delay=2, leave=False):
        data.check(start, stop)


def _work(
    measurement: Measurement, data: ImageData, store: ChunkStore, mine: _Mine, *, guessing: float, show_progress: bool
) -> None:
    """Measure what is missing in ``mine``, in place; each chunk is on disk before the next begins."""
    total = sum(stop - start for (start, stop), _ in mine.values())
    known = [chunk.part.distances for _, chunk in mine.values() if chunk is not None]
    with tqdm(total=total, initial=sum(map(len, known)), desc="ARA", unit="image", disable=not show_progress) as bar:
        for index, (span, chunk) in mine.items():
            if chunk is not None:
                continue
            done = store.load(index, span[1] - span[0]) or _measured(measurement, data, index, *span)
            store.save(index, done)
            mine[index] = (span, done)
            known.append(done.part.distances)
            bar.set_postfix_str(f"ARA {area(torch.cat(known), guessing):.4g}", refresh=False)
            bar.update(span[1] - span[0])


def _measured(measurement: Measurement, data: ImageData, index: int, start: int, stop: int) -> Chunk:
    began = time.monotonic()
    images, labels = data.images(start, stop), data.labels[start:stop]
    torch.manual_seed(index)  # of attacks that draw: by chunk, so that what ran before makes no difference
    part = measurement.run(images, labels, start=start)
    return Chunk(part, time.monotonic() - began)


def _doubts(
    settings: AraSettings, measurement: Measurement, data: ImageData, distances: Sequence[Tensor]
) -> tuple[Doubt, ...]:
    """DOUBTS, the one place: reasons to distrust the figure, looked for by process 0 on the first images."""
    # Beside the images looked at as many others are wanted, to go toward.
    count = min(2 * CHECKED, len(data.labels))
    return find_doubts(
        measurement,
        data.images(0, count),
        data.labels[:count],
        torch.cat(list(distances))[:count],
        depth=settings.doubts,
        max_images=CHECKED,
    )


def _places(settings: AraSettings) -> dict[str, Any]:
    places = {"data_path": settings.data, "weights_path": settings.weights, "class_index": settings.class_index}
    return {name: None if path is None else str(path) for name, path in places.items()} | {
        "chance": settings.chance, "limit": settings.limit, "doubts": settings.doubts
    }  # fmt: skip
