"""An Accuracy-Robustness Area measured by several processes together: each attacks its share of the batches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, distributed, nn

from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import CaptumLipschitzError
from captum_lipschitz.geometry import as_norm
from captum_lipschitz.metrics import AraResult
from captum_lipschitz.metrics.ara import CHECKED, POOL, as_attack, box_of, check_chance, summarise
from captum_lipschitz.metrics.data import Opening
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.metrics.masking import find_doubts
from captum_lipschitz.metrics.measurement import Measurement, Part
from captum_lipschitz.training.processes import number_of_processes, process_rank


def area_in_processes(
    model: nn.Module,
    stream: Iterator[tuple[Tensor, Tensor]],
    *,
    device: torch.device,
    attack: Any = None,
    criterion: Any = "misclassified",
    chance: str | float = "uniform",
    bounds: Any = None,
    norm: Any = "rmse",
    scale: Any = None,
    generator: torch.Generator | None = None,
    doubts: Any = "off",
    show_progress: bool = False,
) -> AraResult:
    """What ``accuracy_robustness_area`` gives of the same batches in one process, to the bit.

    Args:
        model: as there; the same in each process.
        stream: the same batches in each process, all of which must call.
        device: of this process.
        attack: as there, and so are the others down to ``doubts``.
        criterion: as there.
        chance: as there.
        bounds: as there.
        norm: as there.
        scale: as there.
        generator: as there.
        doubts: as there.
        show_progress: not shown, as each process sees a share only.

    Raises:
        As there, in every process, whichever process it was raised in.
    """
    del show_progress
    chosen = as_attack(attack, bounds, norm, scale)
    box = box_of(chosen, bounds)
    measurement = Measurement(model, chosen, as_criterion(criterion), as_norm(norm, scale), box, device)
    check_chance(chance, measurement.criterion)
    opening = Opening(stream, POOL)
    measurement = measurement.starting_from(opening.images())
    own: list[tuple[int, Part]] = []
    failure: Exception | None = None
    try:
        own = _own_share(measurement, opening)
    except Exception as error:  # noqa: BLE001 - raised below; the other processes must not wait for this one
        failure = error
    parts = [part for _, part in sorted(_from_all(own, failure), key=lambda place: place[0])]
    found: tuple[Doubt, ...] = ()
    if parts and doubts != "off":
        images, labels = (tensor[:CHECKED] for tensor in opening.head())
        distances = torch.cat([part.distances for part in parts])[: len(images)]
        found = find_doubts(measurement, images, labels, distances, depth=doubts, max_images=CHECKED)
    return summarise(parts, measurement, chance=chance, generator=generator, doubts=found)


def _own_share(measurement: Measurement, stream: Opening) -> list[tuple[int, Part]]:
    own = []
    start = 0
    for number, (images, labels) in enumerate(stream):
        if number % number_of_processes() == process_rank():
            own.append((start, measurement.run(images, labels, start=start)))
        start += len(images)
    return own


def _from_all(own: list[tuple[int, Part]], failure: Exception | None) -> list[tuple[int, Part]]:
    said = None if failure is None else f"process {process_rank()}: {type(failure).__name__}: {failure}"
    everyone: list[Any] = [None] * number_of_processes()
    distributed.all_gather_object(everyone, (own, said))
    if failure is not None:
        raise failure
    for _, message in everyone:
        if message is not None:
            raise CaptumLipschitzError(f"the measurement failed in another process; {message}")
    return [place for places, _ in everyone for place in places]
