"""Attacks that may change a part of each image only: does the decision still fall, and at what size?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import RowwiseModel, check_inputs, check_labels
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import MinimumNormAttack, PaperAttack
from captum_lipschitz.metrics.measurement import AnyAttack
from captum_lipschitz.metrics.regions import check_region
from captum_lipschitz.metrics.verification import candidates, verified

_SELECT_BY_ROWS = (MinimumNormAttack, PaperAttack)  # attacks known to look at images only through their problem


class ConfinedModel(RowwiseModel):
    """A model that sees changes within a region only: elsewhere it is shown the images as they are.

    Any attack on it is confined: what it changes outside has no effect and no gradient.

    Args:
        model: maps (N, ...) to logits (N, C).
        images: (N, ...); a single one stands for as many copies as are asked for.
        mask: bool, broadcasts to ``images``: where changes are seen.
    """

    def __init__(self, model: Model, images: Tensor, mask: Tensor) -> None:
        self._model = model
        self._images = images
        self._mask = mask

    def __call__(self, inputs: Tensor, /) -> Tensor:
        return self._model(self.seen(inputs))

    def rows(self, index: Tensor) -> ConfinedModel:
        return ConfinedModel(self._model, self._images[index], self._mask[index])

    def seen(self, inputs: Tensor) -> Tensor:
        """What the model is run on, (N, ...)."""
        return torch.where(self._mask, inputs, self._images)


@one_room()
def confined_distances(
    model: Model, images: Tensor, labels: Tensor, region: Tensor, *, attack: AnyAttack | None = None
) -> Tensor:
    """Size of the smallest change found within each image's own region that changes the decision.

    ``MinimumNormAttack`` and ``PaperAttack`` attack all images at once, others image by image, because nothing tells
    which of several images an attack is running the model on.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, (N, ...).
        labels: classes, (N,).
        region: bool, one value for each position, (N, H, W) for (N, C, H, W); its complement is ``~region``.
        attack: ``None`` is ``MinimumNormAttack()``.

    Returns:
        (N,), float64, RMSE over the whole image; 0 where the image is misclassified as it is, ``inf`` where nothing was
        found. Every finite one was found again by running the model on the image.

    Raises:
        InvalidInputError, InvalidTypeError, ModelOutputError, DisconnectedModelError: for what cannot be used.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> image, label, first = torch.tensor([[1.0, 0.0]]), torch.tensor([0]), torch.tensor([[True, False]])
        >>> round(float(confined_distances(model, image, label, first)), 3)  # the first alone has to go all the way
        0.707
    """
    images = check_inputs(images, "images").detach()
    labels = check_labels(labels, len(images)).to(images.device)
    check_region(region, images)
    attack = MinimumNormAttack() if attack is None else attack
    mask = region.to(images.device) if images.dim() == 2 else region.to(images.device)[:, None]
    with settled(), no_trace(model, images):
        images, labels = (x.clone() if x.is_inference() else x for x in (images, labels))
        whole = ConfinedModel(model, images, mask)
        together = torch.arange(len(images), device=images.device)
        parts = [together] if isinstance(attack, _SELECT_BY_ROWS) else together.split(1)
        found = [candidates(attack(whole.rows(p), images[p], labels[p]), images[p]) for p in parts]
        return verified(model, images, labels, whole.seen(torch.cat(found))).distances
