"""An attack's answers, believed only after the model was run on them again."""

from __future__ import annotations

import math
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_labels, check_logits, logits_of
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import AttackResult
from captum_lipschitz.geometry import RMSE, rowwise
from captum_lipschitz.metrics.measurement import AnyAttack


class Verified(NamedTuple):
    """Adversarial images, (N, ...), their RMSE, (N,) float64, ``inf`` where none, and the decisions there, (N,)."""

    images: Tensor
    distances: Tensor
    decisions: Tensor


def attack_and_verify(
    model: Model, images: Tensor, labels: Tensor, attack: AnyAttack, result: AttackResult | None = None
) -> tuple[Tensor, Verified]:
    """Which images are decided rightly, (N,) bool, and what an attack finds on all, or ``result`` has found."""
    with torch.no_grad():
        logits = logits_of(model, images)
    check_labels(labels, len(images), logits.shape[1])
    result = attack(model, images, labels) if result is None else result
    return logits.argmax(1) == labels, verified(model, images, labels, candidates(result, images))


def candidates(result: AttackResult, images: Tensor) -> Tensor:
    """What an attack found, (N, ...); the images themselves where it found nothing."""
    return torch.where(rowwise(result.found, images), result.adversarial_inputs, images)


def verified(model: Model, images: Tensor, labels: Tensor, candidates: Tensor) -> Verified:
    """Run the model on candidates, (N, ...); those that it does not decide otherwise are no answers. No gradient."""
    with torch.no_grad():
        logits = logits_of(model, candidates, partial(check_logits, finite=False))
    decisions = logits.argmax(1)
    holds = (decisions != labels) & torch.isfinite(logits).all(1) & torch.isfinite(candidates).flatten(1).all(1)
    distances = RMSE().size((candidates - images).double())
    return Verified(
        images=torch.where(rowwise(holds, images), candidates, images),
        distances=distances.where(holds, math.inf),
        decisions=decisions.where(holds, labels),
    )
