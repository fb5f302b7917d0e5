"""Accuracy and area of a model from its finished steps."""

from __future__ import annotations

import math
from typing import Any

import torch

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz.metrics import AraResult
from captum_lipschitz.metrics.ara import summarise
from captum_lipschitz.metrics.doubts import Doubt
from captum_lipschitz.report.content import Robustness
from captum_lipschitz.report.steps import measurement, part_of
from captum_lipschitz.report.subject import Subject
from captum_lipschitz.report.work import ATTACK, DOUBTS, LABELS, Job, Work


def area_of(work: Work) -> AraResult | None:
    """The area of a model of classes; ``None`` where the attack could not be run."""
    attacks = work.of(ATTACK)
    if attacks is None:
        return None
    looked = work.of(DOUBTS)
    doubts = tuple(Doubt(**plain) for step in looked or () for plain in step.notes["doubts"])
    return summarise([part_of(step) for step in attacks], measurement(work.subject), chance="uniform", doubts=doubts)


def robustness_of(work: Work) -> Robustness | None:
    """What the report says of accuracy and area; ``None`` where neither could be measured."""
    found = area_of(work)
    if found is not None:
        edges = _edges(found.distances)
        return Robustness(
            accuracy=found.clean_accuracy,
            ara=found.to_dict(),
            curve_rho=tuple(edges.tolist()),
            curve_accuracy=tuple(found.curve(edges).tolist()),
            doubts=tuple(f"{doubt.seen} {doubt.advice}" for doubt in found.doubts),
        )
    if (ATTACK, "") in work.failed:
        return _without_attack(work)
    labels = work.of(LABELS)
    return None if labels is None else _of_labels(labels[0].notes, work.subject.classes)


def _without_attack(work: Work) -> Robustness | None:
    """The accuracy of a model that cannot be attacked; ``None`` where not even that can be measured."""
    try:
        correct = torch.cat([_correct(work.subject, job) for job in work.jobs if job.kind.part == ATTACK])
    except Exception:  # noqa: BLE001 (other people's models raise anything; why the attack failed is told)
        return None
    accuracy = float(correct.double().mean())
    return Robustness(
        accuracy=accuracy,
        ara={"area": math.nan, "interval": None, "clean_accuracy": accuracy, "correct": correct.tolist()},
        curve_rho=(),
        curve_accuracy=(),
        doubts=(f"The area was not measured, for the attack could not be run ({work.failed[ATTACK, '']}).",),
    )


def _correct(subject: Subject, job: Job) -> torch.Tensor:
    images = subject.images(job.start, job.stop)
    with settled(), no_trace(subject.model, images), torch.no_grad():
        decisions = subject.model(images).argmax(1)
    return decisions.cpu() == subject.labels[job.start : job.stop]


def _of_labels(notes: Any, names: tuple[str, ...]) -> Robustness:
    """Each label's area, and their mean in place of the one."""
    known = [(names[one["label"]], one["result"]) for one in notes["labels"] if one["result"] is not None]
    distances = [_distances(result) for _, result in known]
    edges = _edges(torch.cat(distances))
    curves = torch.stack([(one[:, None] > edges).double().mean(0) for one in distances])
    mean = {key: sum(result[key] for _, result in known) / len(known) for key in ("clean_accuracy", "chance_accuracy")}
    return Robustness(
        accuracy=mean["clean_accuracy"],
        ara={
            "area": notes["macro_area"],
            "interval": notes["macro_interval"],
            **mean,
            "not_found": sum(result["not_found"] for _, result in known),
            "norm": known[0][1]["norm"],
            "criterion": "mean over labels, each attacked by itself",
            "attack": known[0][1]["attack"],
            "by_label": {name: {key: result[key] for key in ("area", "interval")} for name, result in known},
        },
        curve_rho=tuple(edges.tolist()),
        curve_accuracy=tuple(curves.mean(0).tolist()),
        doubts=tuple(f"{name}: {doubt['seen']} {doubt['advice']}" for name, r in known for doubt in r["doubts"]),
    )


def _distances(result: Any) -> torch.Tensor:
    infinite = [torch.inf if distance is None else distance for distance in result["distances"]]
    return torch.tensor(infinite, dtype=torch.float64)


def _edges(distances: torch.Tensor) -> torch.Tensor:
    """Where the curve steps down, from 0 on."""
    finite = distances[torch.isfinite(distances)]
    edges: torch.Tensor = torch.unique(torch.cat([torch.zeros(1, dtype=torch.float64), finite]))
    return edges
