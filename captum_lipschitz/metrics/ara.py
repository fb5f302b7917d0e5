"""The Accuracy-Robustness Area of a model: measured with any attack, every answer run through the model again."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._model import check_inputs, check_labels, check_logits, device_of, no_trace
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Attack, AttackResult, MinimumNormAttack
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds, Norm, as_norm, rowwise
from captum_lipschitz.metrics import area as _area
from captum_lipschitz.metrics.result import AraResult

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]

_BATCH = 256


class AnyAttack(Protocol):
    """What ``accuracy_robustness_area`` needs of an attack; ``Attack`` and the plugins' attacks have it."""

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = ..., /
    ) -> AttackResult: ...


def accuracy_robustness_area(
    model: Model,
    data: Data,
    *,
    attack: AnyAttack | None = None,
    criterion: Criterion | str = "misclassified",
    chance: str | float = "uniform",
    bounds: Bounds | tuple[float, float] | None = None,
    norm: Norm | str = "rmse",
    scale: Tensor | float | None = None,
    device: torch.device | str | None = None,
    generator: torch.Generator | None = None,
    show_progress: bool = False,
) -> AraResult:
    """Measure how far a model's accuracy holds as its inputs are perturbed: the area under accuracy over rho.

    For every image the smallest perturbation found that meets the criterion is its distance; accuracy at rho is the
    share of images with a larger one; the ARA is the integral of what of it exceeds guessing. No answer of an attack is
    taken on trust: each adversarial image is run through the model again and its distance measured here.

    Args:
        model: maps inputs (N, ...) to logits (N, C); run in evaluation mode and left as it was.
        data: ``(images, labels)``, or any iterable of such batches (a ``DataLoader``).
        attack: an attack object; ``None`` is ``MinimumNormAttack`` with this function's ``norm`` and ``bounds``. By
            name: ``captum_lipschitz.create_attack("torchattacks:PGDL2")``.
        criterion: ``"misclassified"`` (attack ARA), ``"below_chance"`` (BTR ARA; it depends on the logits' scale) or a
            ``Criterion`` object.
        chance: a0, accuracy of guessing: ``"uniform"`` for 1 / C, ``"majority"`` for the commonest label's share, or
            a fraction.
        bounds: the box that adversarial images must stay in; with an ``attack`` of your own, its bounds.
        norm: what distances are measured in, whatever the attack minimises.
        scale: broadcast to the inputs; distances are then in units of each feature's scale.
        device: where to run; ``None`` is the model's device.
        generator: source of the bootstrap's draws; ``None`` is a fixed seed, so that results repeat.
        show_progress: a progress bar over the images.

    Returns:
        An ``AraResult``. If an error or Ctrl-C ends the work early, the exception carries the result over the batches
        finished by then as its attribute ``partial_result``.

    Raises:
        InvalidInputError, InvalidTypeError: for data or settings that cannot be used.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> images, labels = torch.rand(32, 3, 2, 2), torch.randint(4, (32,))
        >>> result = accuracy_robustness_area(model, (images, labels))
        >>> result.interval[0] <= result.area <= result.interval[1]
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """
    measurement = _Measurement(
        model=model,
        attack=_as_attack(attack, bounds, norm, scale),
        criterion=as_criterion(criterion),
        norm=as_norm(norm, scale),
        bounds=Bounds.of(bounds),
        device=torch.device(device) if device is not None else device_of(model),
    )
    _check_chance(chance)
    tally = _Tally(chance, _area.bootstrap_generator(generator), measurement)
    total = len(data[0]) if isinstance(data, tuple) and _is_pair(data) else None
    try:
        with tqdm(total=total, disable=not show_progress, desc=f"ARA, {measurement.criterion}", unit="image") as bar:
            for images, labels in _batches(data):
                tally.add(measurement.run(images, labels, start=tally.count))
                bar.update(len(images))
            result = tally.result()
            bar.set_postfix_str(str(result))
    except BaseException as error:
        if tally.parts:
            error.partial_result = tally.result()  # type: ignore[attr-defined]
        raise
    return result


@dataclass(frozen=True)
class _Part:
    """One batch's answers, on the CPU."""

    distances: Tensor
    labels: Tensor
    correct: Tensor
    gradient_evaluations: int
    num_classes: int


@dataclass(frozen=True)
class _Measurement:
    """What is measured with what; ``run`` does one batch."""

    model: Model
    attack: AnyAttack
    criterion: Criterion
    norm: Norm
    bounds: Bounds | None
    device: torch.device | None

    def run(self, images: Tensor, labels: Tensor, *, start: int) -> _Part:
        check_inputs(images, "images")
        check_labels(labels, len(images))
        self.norm.check(images)
        criterion = self.criterion.rows(torch.arange(start, start + len(images)))
        device = self.device or images.device
        images, labels = images.detach().to(device), labels.to(device)
        result = self.attack(self.model, images, labels, criterion)
        answers = torch.where(rowwise(result.found, images), result.adversarial_inputs, images)
        with no_trace(self.model, images), torch.no_grad():
            clean = check_logits(self.model(images), len(images))
            perturbed = check_logits(self.model(answers), len(images), finite=False)
        solved = criterion.value(clean, labels) <= 0
        distances = self.norm.size(answers - images).double()
        met = (criterion.value(perturbed, labels) <= 0) & torch.isfinite(perturbed).all(1)
        holds = met & torch.isfinite(distances) & self._inside(answers)
        lost = int((result.found & ~holds & ~solved).sum())
        if lost:
            warnings.warn(
                f"{type(self.attack).__name__} claimed {lost} adversarial images that do not meet the criterion, or "
                "leave the bounds; they count as not found",
                CaptumLipschitzWarning,
                stacklevel=3,
            )
        distances = torch.where(result.found & holds, distances, torch.full_like(distances, math.inf))
        distances = torch.where(solved, torch.zeros_like(distances), distances)
        return _Part(
            distances=distances.cpu(),
            labels=labels.cpu(),
            correct=(clean.argmax(1) == labels).cpu(),
            gradient_evaluations=int(result.gradient_evaluations.sum()),
            num_classes=clean.shape[1],
        )

    def _inside(self, images: Tensor) -> Tensor:
        if self.bounds is None:
            return torch.ones(len(images), dtype=torch.bool, device=images.device)
        return (images == self.bounds.clamp(images)).flatten(1).all(1)


class _Tally:
    """Collects the batches' answers and sums them up."""

    def __init__(self, chance: str | float, generator: torch.Generator, measurement: _Measurement) -> None:
        self.parts: list[_Part] = []
        self.chance = chance
        self.generator = generator
        self.measurement = measurement

    @property
    def count(self) -> int:
        return sum(len(part.labels) for part in self.parts)

    def add(self, part: _Part) -> None:
        self.parts.append(part)

    def result(self) -> AraResult:
        if not self.parts:
            raise InvalidInputError("data: expected at least one batch, got none")
        distances = torch.cat([part.distances for part in self.parts])
        labels = torch.cat([part.labels for part in self.parts])
        chance = self._chance_accuracy(labels)
        return AraResult(
            area=_area.area(distances, chance),
            interval=_area.percentile_interval(_area.bootstrap_areas(distances, chance, generator=self.generator)),
            truncated_area=_area.area(distances, chance, truncated=True),
            not_found=int(torch.isinf(distances).sum()),
            clean_accuracy=float(torch.cat([part.correct for part in self.parts]).double().mean()),
            chance_accuracy=chance,
            distances=distances,
            labels=labels,
            gradient_evaluations=sum(part.gradient_evaluations for part in self.parts),
            norm=self.measurement.norm.name,
            criterion=repr(self.measurement.criterion),
            attack=type(self.measurement.attack).__name__,
        )

    def _chance_accuracy(self, labels: Tensor) -> float:
        if self.chance == "uniform":
            return 1 / self.parts[0].num_classes
        if self.chance == "majority":
            return float(labels.bincount().max()) / len(labels)
        return float(self.chance)


def _as_attack(
    attack: AnyAttack | None,
    bounds: Bounds | tuple[float, float] | None,
    norm: Norm | str,
    scale: Tensor | float | None,
) -> AnyAttack:
    if attack is None:
        return MinimumNormAttack(norm=as_norm(norm, scale), bounds=bounds)
    if isinstance(attack, str):
        raise InvalidTypeError(
            f"attack: expected an attack object, got a name; pass captum_lipschitz.create_attack({attack!r})"
        )
    if isinstance(attack, type) or not callable(attack):
        raise InvalidTypeError(f"attack: expected an attack object, got {attack!r}")
    if bounds is not None and isinstance(attack, Attack) and attack.bounds != Bounds.of(bounds):
        raise InvalidInputError(f"bounds: expected those of the attack, {attack.bounds}, got {bounds}")
    return attack


def _check_chance(chance: str | float) -> None:
    if isinstance(chance, str):
        valid = chance in ("uniform", "majority")
    else:
        valid = isinstance(chance, (int, float)) and 0 <= chance < 1
    if not valid:
        raise InvalidInputError(f"chance: expected 'uniform', 'majority' or a fraction in [0, 1), got {chance!r}")


def _is_pair(data: Any) -> bool:
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def _batches(data: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a pair, cut by index, or those that an iterable brings."""
    if _is_pair(data):
        images, labels = data
        check_inputs(images, "images")
        check_labels(labels, len(images))
        yield from zip(images.split(_BATCH), labels.split(_BATCH), strict=True)
        return
    if not isinstance(data, Iterable) or isinstance(data, Tensor):
        raise InvalidTypeError(
            f"data: expected (images, labels) or an iterable of such batches, got {type(data).__name__}"
        )
    for batch in data:
        if not _is_pair(batch):
            raise InvalidTypeError(f"data: expected batches (images, labels), got {type(batch).__name__}")
        yield batch[0], batch[1]
