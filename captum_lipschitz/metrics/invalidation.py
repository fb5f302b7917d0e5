"""Do attacks invalidate explanations? The decision changes: what becomes of the map that explained it?"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import check_inputs, check_labels
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import AttackResult, MinimumNormAttack
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.confinement import confined_distances
from captum_lipschitz.metrics.invalidated import InvalidationResult
from captum_lipschitz.metrics.maps import Explain, attributed, check_explain, check_share, position_maps
from captum_lipschitz.metrics.measurement import AnyAttack
from captum_lipschitz.metrics.regions import EnergyOutside, energy_outside, important_region
from captum_lipschitz.metrics.similarity import Similarity, map_similarity
from captum_lipschitz.metrics.verification import Verified, attack_and_verify


@one_room()
def invalidation(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    explain: Explain,
    attack: AnyAttack | None = None,
    attacked: AttackResult | None = None,
    area: float = 0.2,
    top: float = 0.1,
    magnitude: bool = True,
    confined: bool = True,
) -> InvalidationResult:
    """Attack images that are decided rightly, and see what their explanations say before and after.

    Three questions, image by image. How similar does the explanation stay although the decision changed? How much of
    the perturbation lies outside the region that the explanation calls important, beside uninformed regions? And does
    an attack that may change that region only, or the rest only, still succeed, and at what size?

    An explanation that stays as it is under a change of the decision is not refuted by that alone: a linear model's
    gradient is the same everywhere, and right. It is the three together that tell.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, finite, (N, ...), all held at once.
        labels: classes, (N,).
        explain: the method: ``explain(images, targets)`` gives attributions of the images' shape, or coarser ones,
            (N, 1, h, w). One that draws random numbers should bring a generator of its own, and a fixed seed.
        attack: ``None`` is ``MinimumNormAttack()``; its ``bounds`` hold for the confined attacks too.
        attacked: what an attack found on these images, to be used rather than found again: for several methods.
        area: share of the positions that an explanation's region has (``important_region``).
        top: share of the positions whose overlap is measured (``top_overlap``).
        magnitude: compare magnitudes, as Ghorbani et al. do and the "absolute" figures of Adebayo et al.; otherwise
            signed values. Regions are always of magnitudes.
        confined: run the confined attacks, which cost twice what the attack does; their figures are NaN otherwise.

    Returns:
        An ``InvalidationResult``.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments, or attributions, that cannot be used.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
        >>> def gradients(images, targets):
        ...     images.requires_grad_()
        ...     return torch.autograd.grad(model(images).gather(1, targets[:, None]).sum(), images)[0]
        >>> images = torch.rand(4, 1, 8, 8)
        >>> found = invalidation(model, images, model(images).argmax(1), explain=gradients)
        >>> found.same_class.rank_correlation.tolist()  # a linear model: its gradient is the same everywhere
        [1.0, 1.0, 1.0, 1.0]

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (attacks that leave explanations as they were); Ghorbani, Abid
        and Zou 2019, arXiv 1710.10547; Adebayo et al. 2018, arXiv 1810.03292.
    """
    images = check_inputs(images, "images").detach()
    labels = check_labels(labels, len(images)).to(images.device)
    check_explain(explain)
    check_share(area, "area")
    check_share(top, "top")
    _check_attacked(attacked, images)
    attack = MinimumNormAttack() if attack is None else attack
    with settled(), no_trace(model, images):
        images, labels = (x.clone() if x.is_inference() else x for x in (images, labels))
        correct, answer = attack_and_verify(model, images, labels, attack, attacked)
        changed = correct & torch.isfinite(answer.distances)
        rows = changed.nonzero().squeeze(1)
        part = Verified(*(values[rows] for values in answer))
        subject = _Subject(model, explain, images[rows], labels[rows], part)
        same, new, energy, sizes = subject.measured(
            attack if confined else None, area=area, top=top, magnitude=magnitude
        )

    def spread(values: Tensor) -> Tensor:
        everywhere = torch.full(correct.shape, math.nan, dtype=torch.float64)
        everywhere[rows.cpu()] = values.cpu()
        return everywhere

    return InvalidationResult(
        correct=correct.cpu(),
        changed=changed.cpu(),
        decisions=torch.where(changed, answer.decisions, labels).cpu(),
        same_class=Similarity(*map(spread, same)),
        new_class=Similarity(*map(spread, new)),
        energy=EnergyOutside(*map(spread, energy)),
        distances=answer.distances.where(correct, math.nan).cpu(),
        within_region=spread(sizes[0]),
        outside_region=spread(sizes[1]),
    )


class _Subject(NamedTuple):
    """Images whose decision an attack has changed, none to many, and the method in question."""

    model: Model
    explain: Explain
    images: Tensor
    labels: Tensor
    answer: Verified

    def measured(
        self, attack: AnyAttack | None, *, area: float, top: float, magnitude: bool
    ) -> tuple[Similarity, Similarity, EnergyOutside, tuple[Tensor, Tensor]]:
        if not len(self.labels):
            nothing = torch.zeros(0, dtype=torch.float64)
            return (
                Similarity(*[nothing] * 4),
                Similarity(*[nothing] * 4),
                EnergyOutside(*[nothing] * 4),
                (nothing, nothing),
            )
        before = attributed(self.explain, self.images, self.labels)
        maps = position_maps(before, self.images, magnitude=magnitude)
        same, new = (
            map_similarity(maps, self._after(targets, magnitude=magnitude), top=top)
            for targets in (self.labels, self.answer.decisions)
        )
        region = important_region(position_maps(before, self.images), area=area)
        energy = energy_outside(self.answer.images - self.images, region)
        return same, new, energy, (self._confined(region, attack), self._confined(~region, attack))

    def _after(self, targets: Tensor, *, magnitude: bool) -> Tensor:
        return position_maps(attributed(self.explain, self.answer.images, targets), self.images, magnitude=magnitude)

    def _confined(self, region: Tensor, attack: AnyAttack | None) -> Tensor:
        """The confined attack's distances, (M,), NaN where the explanation singles out no region."""
        positions = region.flatten(1)
        rows = (positions.any(1) & ~positions.all(1)).nonzero().squeeze(1)
        sizes = torch.full(self.labels.shape, math.nan, dtype=torch.float64, device=region.device)
        if attack is not None and len(rows):
            sizes[rows] = confined_distances(
                self.model, self.images[rows], self.labels[rows], region[rows], attack=attack
            )
        return sizes


def _check_attacked(attacked: object, images: Tensor) -> None:
    if attacked is None:
        return
    if not isinstance(attacked, AttackResult):
        raise InvalidTypeError(f"attacked: expected an AttackResult or None, got {type(attacked).__name__}")
    if attacked.adversarial_inputs.shape != images.shape:
        raise InvalidInputError(
            f"attacked: expected adversarial inputs of the images' shape, {tuple(images.shape)}, got "
            f"{tuple(attacked.adversarial_inputs.shape)}"
        )
