"""Accuracy-Robustness Areas of a model that decides several labels of an image, each by the sign of its logit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import check_label_sets, device_of
from captum_lipschitz._typing import Model
from captum_lipschitz.criteria import LabelFlips
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, as_norm
from captum_lipschitz.metrics import area as _area
from captum_lipschitz.metrics.ara import CHECKED, POOL, as_attack, box_of, check_chance, summarise
from captum_lipschitz.metrics.data import Data, Opening, batches, is_pair
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.metrics.masking import Depth, check_depth, find_doubts
from captum_lipschitz.metrics.measurement import AnyAttack, Measurement, Part
from captum_lipschitz.metrics.result import AraResult


@dataclass(frozen=True)
class MultilabelResult:
    """One Accuracy-Robustness Area per label, and their mean.

    Attributes:
        labels: from label k to the ``AraResult`` of the images for which it is known; a label known for no image is not
            there. Its ``labels`` are 0 and 1; ``per_class()[1]`` is the area of the images that have the label, which
            is what to look at for a rare one.
        unknown: from label k to the number of images left out because it is unknown there; every label asked for.
        macro_area: mean of the areas in ``labels``, in the norm's units; ``inf`` where one of them is.
        macro_interval: 95% interval of it: every resample draws the same images for all labels.
    """

    labels: dict[int, AraResult]
    unknown: dict[int, int]
    macro_area: float
    macro_interval: tuple[float, float]

    def __str__(self) -> str:
        low, high = self.macro_interval
        first = f"mean ARA of {len(self.labels)} labels {self.macro_area:.4g} [{low:.4g}, {high:.4g}]"
        doubts = [f"  label {k}, doubt ({doubt})" for k, result in self.labels.items() for doubt in result.doubts]
        return "\n".join([first, *doubts])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON's types, labels as a list; an infinite area is ``None``."""
        figures: dict[str, Any] = _area.finite_or_none(
            {
                "macro_area": self.macro_area,
                "macro_interval": self.macro_interval,
                "labels": [
                    {"label": k, "unknown": unknown, "result": self.labels[k].to_dict() if k in self.labels else None}
                    for k, unknown in self.unknown.items()
                ],
            }
        )
        return figures


@one_room()
def multilabel_robustness_areas(
    model: Model,
    data: Data,
    *,
    which: Sequence[int] | None = None,
    attack: AnyAttack | None = None,
    chance: str | float = "majority",
    bounds: Bounds | tuple[float, float] | None = None,
    norm: Norm | str = "rmse",
    scale: Tensor | float | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    doubts: Depth = "quick",
    show_progress: bool = False,
) -> MultilabelResult:
    """Measure each label's Accuracy-Robustness Area: how far its decision holds as inputs are perturbed.

    Label k is decided to be there where its logit is above 0. Each is attacked by itself, ``LabelFlips(label=k)``, on
    the images for which it is known, so the cost is that of ``accuracy_robustness_area`` times the number of labels.

    Args:
        model: maps inputs (N, ...) to logits (N, K), K at least 1; run in evaluation mode and left as it was.
        data: ``(images, labels)`` or any iterable of such batches; labels (N, K) of 1 (there), 0 (not there) and -1
            (unknown).
        which: the labels to measure, from 0; ``None`` for all.
        attack: an attack object that takes ``LabelFlips``; ``None`` is ``MinimumNormAttack``.
        chance: a0 of each label: ``"majority"``, the larger of its shares of 0 and 1 among the images where it is
            known; ``"uniform"`` for 1 / 2; or a fraction.
        bounds: see ``accuracy_robustness_area``, as for the following.
        norm: what distances are measured in.
        scale: broadcast to the inputs.
        device: where to run.
        generator: source of the bootstrap's draws; ``None`` is a fixed seed.
        doubts: how closely to look for reasons to doubt each area, on its first 16 images.
        show_progress: a progress bar over the images.

    Returns:
        A ``MultilabelResult``. If an error or Ctrl-C ends the work early, the exception carries the result over the
        batches finished by then as its attribute ``partial_result``.

    Raises:
        InvalidInputError, InvalidTypeError: for data or settings that cannot be used, or no known label at all.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

    Example:
        >>> model, images = torch.nn.Linear(6, 2), torch.rand(16, 6)
        >>> labels = torch.stack([torch.arange(16) % 2, torch.full((16,), -1)], dim=1)
        >>> result = multilabel_robustness_areas(model, (images, labels))
        >>> list(result.labels), result.unknown
        ([0], {0: 0, 1: 16})

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (the area); Song et al. 2018, arXiv 1901.00546 (attacks on
        several labels).
    """
    chosen = as_attack(attack, bounds, norm, scale)
    shared = Measurement(
        model=model,
        attack=chosen,
        criterion=LabelFlips(0),
        norm=as_norm(norm, scale),
        bounds=box_of(chosen, bounds),
        device=torch.device(device) if device is not None else device_of(model),
    )
    check_chance(chance, shared.criterion)
    check_depth(doubts)
    draws = _area.bootstrap_generator(generator)
    work = _Work(shared, None if which is None else [LabelFlips(k) for k in which], doubts)
    total = len(data[0]) if isinstance(data, tuple) and is_pair(data) else None
    try:
        with tqdm(total=total, disable=not show_progress, desc="ARA per label", unit="image") as bar:
            stream = Opening(batches(data, check_label_sets), POOL)
            work.shared = shared.starting_from(stream.images())
            for images, labels in stream:
                work.run(images, labels)
                bar.update(len(images))
            work.look_at_what_waits()
            result = work.result(chance, draws)
            bar.set_postfix_str(str(result).partition("\n")[0])
    except BaseException as error:
        if work.measured():
            error.partial_result = work.result(chance, draws)  # type: ignore[attr-defined]
        raise
    return result


class _Work:
    """The batches' answers so far, label by label."""

    def __init__(self, shared: Measurement, criteria: Sequence[LabelFlips] | None, depth: Depth) -> None:
        self.shared = shared
        self.criteria = criteria
        self.depth = depth
        self.parts: dict[int, list[Part]] = {}
        self.doubts: dict[int, tuple[Doubt, ...]] = {}
        self.waiting: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}  # a label's first images, until they are 16
        self.known: list[Tensor] = []  # (batch, labels) bool

    def run(self, images: Tensor, labels: Tensor) -> None:
        """Attack every label of one batch; nothing is kept of a batch that ends in an error."""
        labels = check_label_sets(labels, len(images)).cpu()
        criteria = self._criteria(labels.shape[1])
        known = torch.stack([labels[:, k] >= 0 for k in criteria], dim=1)
        parts = {}
        for column, (k, criterion) in enumerate(criteria.items()):
            rows = known[:, column].nonzero().squeeze(1)
            if len(rows):
                measurement = replace(self.shared, criterion=criterion)
                batch = images[rows.to(images.device)], labels[rows]
                parts[k] = measurement.run(*batch, start=0)
                if k not in self.doubts:
                    self.waiting.setdefault(k, []).append((*batch, parts[k].distances))
                    if sum(len(one) for one, *_ in self.waiting[k]) >= CHECKED:
                        self._look(k)
        self.known.append(known)
        for k, part in parts.items():
            self.parts[k].append(part)

    def look_at_what_waits(self) -> None:
        """Look for doubts also about labels that are known for fewer images than would be looked at."""
        for k in [k for k, waiting in self.waiting.items() if waiting]:
            self._look(k)

    def _look(self, k: int) -> None:
        shape = self.waiting[k][0][0].shape[1:]
        alike = [one for one in self.waiting.pop(k) if one[0].shape[1:] == shape]
        images, labels, distances = (torch.cat(part) for part in zip(*alike, strict=True))
        measurement = replace(self.shared, criterion=LabelFlips(k))
        self.doubts[k] = find_doubts(measurement, images, labels, distances, depth=self.depth, max_images=CHECKED)

    def _criteria(self, num_labels: int) -> dict[int, LabelFlips]:
        if self.criteria is None:
            self.criteria = [LabelFlips(k) for k in range(num_labels)]
        chosen = {criterion.label: criterion for criterion in self.criteria if criterion.label is not None}
        if not chosen or max(chosen) >= num_labels:
            raise InvalidInputError(f"which: expected labels in 0..{num_labels - 1}, got {list(chosen)}")
        for k in chosen:
            self.parts.setdefault(k, [])
        return chosen

    def measured(self) -> bool:
        return any(self.parts.values())

    def result(self, chance: str | float, generator: torch.Generator) -> MultilabelResult:
        if not self.measured():
            what = "a label that is known for some image" if self.known else "at least one batch"
            raise InvalidInputError(f"data: expected {what}, got none")
        known = torch.cat(self.known)
        results = {
            k: summarise(
                parts,
                replace(self.shared, criterion=LabelFlips(k)),
                chance=chance,
                generator=generator,
                doubts=self.doubts.get(k, ()),
            )
            for k, parts in self.parts.items()
            if parts
        }
        masks = dict(zip(self.parts, known.unbind(1), strict=True))
        return MultilabelResult(
            labels=results,
            unknown={k: int((~mask).sum()) for k, mask in masks.items()},
            macro_area=sum(result.area for result in results.values()) / len(results),
            macro_interval=_macro_interval(results, masks, generator),
        )


def _macro_interval(
    results: dict[int, AraResult], known: dict[int, Tensor], generator: torch.Generator
) -> tuple[float, float]:
    means = []
    for counts in _area.resample_counts(len(next(iter(known.values()))), generator=generator):
        areas = [
            _area.weighted_areas(result.distances, counts[:, known[k]], result.chance_accuracy)
            for k, result in results.items()
        ]
        means.append(torch.stack(areas).mean(0))
    return _area.percentile_interval(torch.cat(means))
