"""The Accuracy-Robustness Area of a model: measured with any attack, every answer run through the model again."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import device_of
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Attack, MinimumNormAttack
from captum_lipschitz.criteria import Criterion, LabelFlips, as_criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds, Norm, as_norm
from captum_lipschitz.metrics import area as _area
from captum_lipschitz.metrics.data import Data, Opening, batches, is_pair
from captum_lipschitz.metrics.doubts import Doubt, not_found
from captum_lipschitz.metrics.masking import Depth, check_depth, find_doubts
from captum_lipschitz.metrics.measurement import AnyAttack, Measurement, Part
from captum_lipschitz.metrics.result import AraResult

POOL = 64  # images of the data that an attack may start from
CHECKED = 16  # images that doubts are looked for on


@one_room()
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
    doubts: Depth = "quick",
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
            ``Criterion`` object. For several labels per image see ``multilabel_robustness_areas``.
        chance: a0, accuracy of guessing: ``"uniform"`` for 1 / C, ``"majority"`` for the commonest label's share, or
            a fraction. Within a class see ``AraResult.class_chance_accuracy``.
        bounds: the box that adversarial images must stay in; ``None`` is that of the ``attack``, where it has one.
        norm: what distances are measured in, whatever the attack minimises.
        scale: broadcast to the inputs; distances are then in units of each feature's scale.
        device: where to run; ``None`` is the model's device.
        generator: source of the bootstrap's draws; ``None`` is a fixed seed, so that results repeat.
        doubts: how closely to look for reasons to doubt the area, on the first 16 images (``find_doubts`` lists what is
            looked for, and the cost): ``"quick"`` costs about what attacking five images does; ``"full"`` also attacks
            the 16 again with more effort; ``"off"`` leaves only the count of images not found.
        show_progress: a progress bar over the images.

    Returns:
        An ``AraResult``. If an error or Ctrl-C ends the work early, the exception carries the result over the batches
        finished by then as its attribute ``partial_result``.

    Raises:
        InvalidInputError, InvalidTypeError: for data or settings that cannot be used.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.
        RuntimeError, MemoryError: out of memory with a single image.

    Warns:
        CaptumLipschitzWarning: once, where memory runs out: half as many images are then run at once, and half of those
            again; distances change by rounding only.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 4))
        >>> images, labels = torch.rand(32, 3, 2, 2), torch.randint(4, (32,))
        >>> result = accuracy_robustness_area(model, (images, labels))
        >>> result.interval[0] <= result.area <= result.interval[1]
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """
    chosen = as_attack(attack, bounds, norm, scale)
    measurement = Measurement(
        model=model,
        attack=chosen,
        criterion=as_criterion(criterion),
        norm=as_norm(norm, scale),
        bounds=box_of(chosen, bounds),
        device=torch.device(device) if device is not None else device_of(model),
    )
    check_chance(chance, measurement.criterion)
    draws = _area.bootstrap_generator(generator)
    check_depth(doubts)
    parts: list[Part] = []
    found: tuple[Doubt, ...] = ()
    count = 0
    total = len(data[0]) if isinstance(data, tuple) and is_pair(data) else None
    try:
        with tqdm(total=total, disable=not show_progress, desc=f"ARA, {measurement.criterion}", unit="image") as bar:
            stream = Opening(batches(data, measurement.criterion.check_labels), POOL)
            measurement = measurement.starting_from(stream.images())
            for images, labels in stream:
                parts.append(measurement.run(images, labels, start=count))
                count += len(images)
                if count - len(images) < CHECKED <= count:
                    found = _first_doubts(measurement, stream, parts, doubts)
                bar.update(len(images))
            if 0 < count < CHECKED:
                found = _first_doubts(measurement, stream, parts, doubts)
            result = summarise(parts, measurement, chance=chance, generator=draws, doubts=found)
            bar.set_postfix_str(str(result).partition("\n")[0])
    except BaseException as error:
        if parts:
            partial = summarise(parts, measurement, chance=chance, generator=draws, doubts=found)
            error.partial_result = partial  # type: ignore[attr-defined]
        raise
    return result


def _first_doubts(measurement: Measurement, stream: Opening, parts: list[Part], depth: Depth) -> tuple[Doubt, ...]:
    """Doubts about the first images, of however many batches they came in."""
    images, labels = stream.head()
    distances = torch.cat([part.distances for part in parts])
    count = min(len(images), len(distances))
    return find_doubts(measurement, images[:count], labels[:count], distances, depth=depth, max_images=CHECKED)


def summarise(
    parts: Sequence[Part],
    measurement: Measurement,
    *,
    chance: str | float,
    generator: torch.Generator | None = None,
    doubts: Sequence[Doubt] = (),
) -> AraResult:
    """The batches' answers as one result; the same parts in the same order give the same figures.

    Args:
        parts: at least one.
        measurement: what they were measured with.
        chance: see ``accuracy_robustness_area``.
        generator: of the bootstrap; ``None`` is a fixed seed.
        doubts: what ``find_doubts`` found; that of images without an answer, which needs all parts, is added here.
    """
    if not parts:
        raise InvalidInputError("data: expected at least one batch, got none")
    distances = torch.cat([part.distances for part in parts])
    labels = torch.cat([part.labels for part in parts])
    correct = torch.cat([part.correct for part in parts])
    num_classes = parts[0].num_classes
    guessing = chance_accuracy(chance, labels, num_classes)
    return AraResult.of(
        distances,
        labels,
        correct,
        chance_accuracy=guessing,
        class_chance_accuracy=1 / num_classes if isinstance(chance, str) else float(chance),
        gradient_evaluations=int(sum(part.gradient_evaluations.sum() for part in parts)),
        norm=measurement.norm.unit,
        criterion=repr(measurement.criterion),
        attack=str(getattr(measurement.attack, "name", type(measurement.attack).__name__)),
        doubts=(*doubts, *not_found(distances, guessing)),
        generator=generator,
    )


def chance_accuracy(chance: str | float, labels: Tensor, num_classes: int) -> float:
    """a0 of all images together: ``"uniform"``, ``"majority"`` of labels, (N,), or the fraction given."""
    if chance == "uniform":
        return 1 / num_classes
    if chance == "majority":
        return float(labels.bincount().max()) / len(labels)
    return float(chance)


def as_attack(
    attack: AnyAttack | None,
    bounds: Bounds | tuple[float, float] | None,
    norm: Norm | str,
    scale: Tensor | float | None,
) -> AnyAttack:
    """The attack object given, or the library's own in the norm and bounds asked for."""
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


def box_of(attack: AnyAttack, bounds: Bounds | tuple[float, float] | None) -> Bounds | None:
    """The box that answers must lie in: the one asked for, else the attack's own."""
    own = getattr(attack, "bounds", None)
    return Bounds.of(own if bounds is None and isinstance(own, tuple) else bounds)


def check_chance(chance: str | float, criterion: Criterion) -> None:
    """Raise ``InvalidInputError`` for an accuracy of guessing that cannot be, or that the criterion does not tell."""
    if isinstance(chance, str) and isinstance(criterion, LabelFlips) and criterion.label is None:
        raise InvalidInputError(f"chance: expected a fraction with LabelFlips() (0.0 for none), got {chance!r}")
    if isinstance(chance, str):
        valid = chance in ("uniform", "majority")
    else:
        valid = isinstance(chance, (int, float)) and 0 <= chance < 1
    if not valid:
        raise InvalidInputError(f"chance: expected 'uniform', 'majority' or a fraction in [0, 1), got {chance!r}")
