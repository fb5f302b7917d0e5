"""The steps of an audit: each looks at one chunk of images, by one method at most, and tells the same every time."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import AttackResult, MinimumNormAttack
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.geometry import RMSE
from captum_lipschitz.metrics import multilabel_robustness_areas
from captum_lipschitz.metrics.fidelity import FidelitySettings, explanation_fidelity
from captum_lipschitz.metrics.invalidation import invalidation
from captum_lipschitz.metrics.masking import find_doubts
from captum_lipschitz.metrics.measurement import AnyAttack, Measurement, Part
from captum_lipschitz.report.content import ExplainedImage, Picture
from captum_lipschitz.report.explanations.methods import Method
from captum_lipschitz.report.images.grid import explained_classes, explained_image
from captum_lipschitz.report.images.unshown import pictured_methods
from captum_lipschitz.report.settings import AuditSettings, Plan
from captum_lipschitz.report.store import Step
from captum_lipschitz.report.subject import Subject

DOUBTED = 16  # images that doubts are looked for on


class Chunk(NamedTuple):
    """Images, (M, ...), and their labels on the device, and the place of the first in the data."""

    images: Tensor
    labels: Tensor
    start: int


class _Given:
    """An attack that was run already."""

    def __init__(self, result: AttackResult) -> None:
        self._result = result

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = "misclassified", /
    ) -> AttackResult:
        del model, inputs, labels, criterion
        return self._result


def measurement(subject: Subject, attack: AnyAttack | None = None) -> Measurement:
    """What an area of the subject is measured with."""
    return Measurement(
        model=subject.model,
        attack=subject.attack if attack is None else attack,
        criterion=as_criterion("misclassified"),
        norm=RMSE(),
        bounds=subject.bounds,
        device=subject.device,
    )


def attacked(subject: Subject, chunk: Chunk) -> tuple[Step, AttackResult]:
    """The attack on each image: what is kept, and what is not, for an image could be had from its change."""
    images = chunk.images
    result = subject.attack(subject.model, images, chunk.labels)
    part = measurement(subject, _Given(result)).run(images, chunk.labels, start=chunk.start)
    with settled(), no_trace(subject.model, images), torch.no_grad():
        decisions = subject.model(images).argmax(1)
    step = Step(
        values={
            "decisions": decisions,
            **{field.name: getattr(part, field.name) for field in fields(part) if field.name != "num_classes"},
        },
        notes={"num_classes": part.num_classes},
    )
    return step, result


def part_of(step: Step) -> Part:
    """An ``attacked`` step's answers, as an area is made of."""
    values = {field.name: step.values[field.name] for field in fields(Part) if field.name != "num_classes"}
    return Part(**values, num_classes=step.notes["num_classes"])


def doubts(subject: Subject, distances: Tensor) -> Step:
    """Reasons to distrust the area, looked for on the first images (``find_doubts``)."""
    count = min(2 * DOUBTED, len(subject.labels))
    found = find_doubts(
        measurement(subject),
        subject.images(0, count),
        subject.labels[:count],
        distances[:count],
        depth="quick",
        max_images=DOUBTED,
    )
    return Step(notes={"doubts": [asdict(doubt) for doubt in found]})


def invalidated(subject: Subject, chunk: Chunk, method: Method, attack: AttackResult, plan: Plan) -> Step:
    """What the attack, and attacks confined by the method's map, do to its explanations."""
    confined = MinimumNormAttack(effort=plan.confined or "fast", bounds=subject.bounds)  # type: ignore[arg-type]
    found = invalidation(
        subject.model,
        chunk.images,
        chunk.labels,
        explain=method.make(subject.model),
        attack=confined,
        attacked=attack,
        confined=plan.confined is not None,
    )
    succeeded = {
        f"succeeds_{where}": torch.isfinite(sizes).double().where(~sizes.isnan(), torch.nan)
        for where, sizes in (("within", found.within_region), ("outside", found.outside_region))
    }
    return Step(values={**found.values(), **succeeded})


def as_notes(image: ExplainedImage) -> dict[str, Any]:
    """An explained image as JSON's types."""

    def plain(picture: Picture) -> dict[str, Any]:
        return {**asdict(picture), "png": base64.b64encode(picture.png).decode()}

    shown: Mapping[str, Mapping[str, tuple[Picture, ...]]] = image.explanations
    return {
        **{name: getattr(image, name) for name in ("number", "name", "label", "prediction")},
        "original": None if image.original is None else plain(image.original),
        "explanations": {
            target: {method: [plain(picture) for picture in pictures] for method, pictures in by_method.items()}
            for target, by_method in shown.items()
        },
    }


def as_image(notes: Mapping[str, Any]) -> ExplainedImage:
    """The explained image that ``as_notes`` made this of."""

    def picture(plain: Mapping[str, Any]) -> Picture:
        return Picture(**{**plain, "png": base64.b64decode(plain["png"])})

    return ExplainedImage(
        **{name: notes[name] for name in ("number", "name", "label", "prediction")},
        original=None if notes["original"] is None else picture(notes["original"]),
        explanations={
            target: {method: tuple(map(picture, pictures)) for method, pictures in by_method.items()}
            for target, by_method in notes["explanations"].items()
        },
    )


def faithful(subject: Subject, chunk: Chunk, method: Method, settings: AuditSettings) -> Step:
    """How faithful a method's explanations of the model's own decisions are, by every measure that can be taken."""
    with settled(), no_trace(subject.model, chunk.images), torch.no_grad():
        decisions = subject.model(chunk.images).argmax(1)
    found = explanation_fidelity(
        subject.model,
        chunk.images,
        decisions,
        make=method.make,
        settings=FidelitySettings(
            **{"rho": settings.rho, **settings.plan.fidelity, "objective": method.objective},
        ),
        bounds=subject.bounds,
        generator=torch.Generator().manual_seed(settings.seed),
        direction_known=method.signed,
        contributions=not method.direction,
        baseline=subject.average if chunk.images.dim() == 2 else None,
        reference=method.reference(chunk.images),
    )
    return Step(values=found.values, notes={"left_out": dict(found.left_out)})


def label_by_label(subject: Subject, chunk: Chunk) -> Step:
    """The areas of a model that decides several labels, each by itself."""
    found = multilabel_robustness_areas(
        subject.model,
        (chunk.images, chunk.labels),
        attack=subject.attack,
        bounds=subject.bounds,
        device=subject.device,
    )
    return Step(notes=found.to_dict())


def pictured(subject: Subject, chunk: Chunk, settings: AuditSettings) -> Step:
    """The explanation grid's images: the label, the decision and the likeliest others, by every method.

    ``failed`` names the methods that raised, with the reason, once for each image.
    """
    with settled(), no_trace(subject.model, chunk.images), torch.no_grad():
        logits = subject.model(chunk.images)
    several = subject.head.kind == "multi_label"
    methods, shown = pictured_methods(subject.methods, images=settings.images), []
    if not methods:
        return Step(notes={"images": [], "failed": []})
    failed: list[tuple[str, str]] = []
    for row, image in enumerate(chunk.images):
        label = None if several else int(chunk.labels[row])
        number = chunk.start + row
        shown.append(
            explained_image(
                subject.model,
                methods,
                image[None],
                number=number,
                name=_name(subject, number),
                label=label,
                prediction=int(logits[row].argmax()),
                decided=not several or bool(logits[row].max() > 0),
                class_names=subject.classes,
                classes=explained_classes(logits[row], label, most=settings.plan.classes),
                rhos=[factor * settings.rho for factor in settings.plan.sizes],
                with_images=settings.images,
                bounds=subject.bounds,
                failing=lambda method, error: failed.append((method.name, reason(error))),
            )
        )
    return Step(notes={"images": [as_notes(one) for one in shown], "failed": failed})


def reason(error: Exception) -> str:
    """An error in one line."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _name(subject: Subject, number: int) -> str:
    name = subject.data.name(number)
    return f"image {number}" if name == str(number) else name
