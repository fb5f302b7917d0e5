"""A model and its images, made ready for an audit: everything that can be refused is refused here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import Attack, MinimumNormAttack
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds
from captum_lipschitz.measure.data import ImageData, check_folder_classes, starting_images
from captum_lipschitz.measure.fingerprints import identity_of
from captum_lipschitz.measure.models import load_model
from captum_lipschitz.measure.settings import version_of
from captum_lipschitz.report.explanations.explaining import rows_for
from captum_lipschitz.report.explanations.heads import Head, as_classes, head_of
from captum_lipschitz.report.explanations.methods import Method, all_methods
from captum_lipschitz.report.names import class_names
from captum_lipschitz.report.settings import AuditSettings

PACKAGES = ("captum-lipschitz", "torch", "captum", "quantus", "torchvision", "pillow")
_TRIED = 16  # images at most that tell what the model returns


@dataclass(frozen=True, kw_only=True)
class Subject:
    """One model of an audit.

    Attributes:
        name: of the model as given.
        model: with one logit for each output that can be explained.
        head: kind of its decision.
        data: the images.
        labels: (N,), or (N, K) for a multi-label model; on the CPU.
        classes: names of the outputs.
        methods: that can explain this model, by name, in the order of tables.
        left_out: why the other methods that were asked for cannot, by name.
        attack: that everything is measured with.
        bounds: of adversarial images.
        average: (1, ...), of images spread over the data: what stands for "not there" in rows of features.
        device: where the work is done.
        identity: everything that the finished steps depend on besides their names, JSON's types.
    """

    name: str
    model: Model
    head: Head
    data: ImageData
    labels: Tensor
    classes: tuple[str, ...]
    methods: Mapping[str, Method]
    left_out: Mapping[str, str]
    attack: Attack
    bounds: Bounds | None
    average: Tensor
    device: torch.device
    identity: Mapping[str, Any]

    def images(self, start: int, stop: int) -> Tensor:
        """The images from ``start`` to ``stop``, on the device."""
        return self.data.images(start, stop).to(self.device)


def subject_of(settings: AuditSettings, which: int, data: ImageData, device: torch.device) -> Subject:
    """Load a model, try it on the first images, and set its methods up.

    Args:
        settings: of the audit.
        which: 0 for the first model, 1 for the one that it is compared with.
        data: the images, found readable.
        device: to work on.

    Raises:
        InvalidInputError, InvalidTypeError, MissingDependencyError: settings, weights or images that cannot be used.
        ModelOutputError: for a model whose output is no decision.
    """
    measured = settings.measured(which)
    raw = load_model(
        measured.model, weights=measured.weights, mean=measured.mean, std=measured.std, device=device
    )  # fmt: skip
    first = data.images(0, 1).to(device)
    starting = starting_images(data).to(device)
    head = _tried(raw, starting[: min(_TRIED, max(2, rows_for(starting)))], data.labels)
    labels = head.labels(data.labels)
    if head.kind != "multi_label":
        check_folder_classes(data, measured, head.outputs)
    model = as_classes(raw, head)
    average = starting.mean(0, keepdim=True)
    methods, left_out = all_methods(
        model,
        first,
        rho=settings.rho,
        bounds=settings.bounds,
        effort=settings.effort,
        multi_label=head.kind == "multi_label",
        baseline=average if first.dim() == 2 else None,
        generator=torch.Generator().manual_seed(settings.seed),
    )
    chosen = settings.chosen()
    attack = MinimumNormAttack(effort=settings.plan.attack, bounds=settings.bounds)  # type: ignore[arg-type]
    return Subject(
        name=_name(settings, which),
        model=model,
        head=head,
        data=data,
        labels=labels,
        classes=class_names(
            settings.class_names, head.outputs, class_index=settings.class_index, folders=data.folder_names
        ),
        methods={name: method for name, method in methods.items() if name in chosen},
        left_out={name: reason for name, reason in left_out.items() if name in chosen},
        # As the command `ara` does it: the same images for every chunk, since an answer may depend on them.
        attack=attack.starting_from(starting),
        bounds=Bounds.of(settings.bounds),
        average=average,
        device=device,
        identity=_identity(settings, which, raw, data, device),
    )


def _name(settings: AuditSettings, which: int) -> str:
    """Of the callable and the weights; the models of one audit have different ones."""
    names = []
    for measured in map(settings.measured, range(len(settings.models()))):
        spec = measured.model.rpartition(":")[2]
        names.append(spec if measured.weights is None else f"{spec}, {measured.weights.stem}")
    return names[which] if len(set(names)) == len(names) else f"{names[which]} ({('first', 'second')[which]})"


def _tried(model: Model, images: Tensor, labels: Tensor) -> Head:
    try:
        return head_of(model, images, labels)
    except RuntimeError as error:
        shape, reason = tuple(images.shape[1:]), str(error).partition("\n")[0]
        raise InvalidInputError(
            f"model: expected one that takes images of shape {shape}, got RuntimeError: {reason}"
        ) from error


def _identity(
    settings: AuditSettings, which: int, model: Model, data: ImageData, device: torch.device
) -> dict[str, Any]:
    """Of one model's steps; methods are named by the steps, and how results are shown is nothing they depend on."""
    measured = settings.measured(which)
    return {
        **measured.identity(),
        "audit_effort": settings.effort,
        "confined": settings.plan.confined,
        "fidelity": dict(settings.plan.fidelity),
        "rho": settings.rho,
        "seed": settings.seed,
        **identity_of(measured.model, model, data, device),
        "device": device.type,
        "threads": settings.threads if device.type == "cpu" else None,
        "versions": {name: version_of(name) for name in PACKAGES},
    }
