"""The smallest change found that changes the decision and keeps the explanation: how little the map would tell."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import check_inputs, check_labels
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import MinimumNormAttack
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds, rowwise
from captum_lipschitz.metrics.area import finite_or_none
from captum_lipschitz.metrics.estimates import Estimate, estimate
from captum_lipschitz.metrics.kept_search import Search, Terms
from captum_lipschitz.metrics.maps import Explain, check_explain, check_share
from captum_lipschitz.metrics.measurement import AnyAttack
from captum_lipschitz.metrics.verification import attack_and_verify, verified

Measure = Literal["correlation", "cosine"]


@dataclass(frozen=True)
class KeptExplanation:
    """What was found, one row per image, on the CPU except for the images.

    Attributes:
        adversarial_inputs: (N, ...), the clean image where nothing was found.
        distances: (N,) float64, RMSE of the smallest change found that changes the decision and keeps the explanation;
            an upper bound; ``inf`` where nothing was found, NaN where the clean image is decided wrongly.
        unrestricted: (N,) float64, RMSE of the attack that may change the explanation as well; likewise.
        found: (N,) bool: model and method, the real ones, were run again.
        similarities: (N,) float64, of the explanations before and after; NaN where nothing was found.
    """

    adversarial_inputs: Tensor
    distances: Tensor
    unrestricted: Tensor
    found: Tensor
    similarities: Tensor

    def estimates(self, *, generator: torch.Generator | None = None) -> dict[str, Estimate]:
        """``found``: share of the images decided rightly; ``strength``: mean of ``unrestricted / distances``.

        The strength is 0 where nothing was found, 1 where keeping the explanation costs nothing, above 1 where this
        search found a smaller change than the attack.
        """
        found = self.found.double().where(~self.distances.isnan(), torch.nan)
        values = {"found": found, "strength": self.unrestricted / self.distances}
        return {name: estimate(one, generator=generator) for name, one in values.items()}

    def to_dict(self) -> dict[str, Any]:
        """The figures, without images, as JSON's types; an undefined or infinite one is ``None``."""
        names = ("distances", "unrestricted", "found", "similarities")
        figures: dict[str, Any] = finite_or_none({name: getattr(self, name).tolist() for name in names})
        return figures


@one_room()
def attack_keeping_explanation(
    model: Model,
    images: Tensor,
    labels: Tensor,
    *,
    explain: Explain,
    similarity: float = 0.9,
    measure: Measure = "correlation",
    magnitude: bool = True,
    steps: int = 60,
    bounds: Bounds | tuple[float, float] | None = None,
    attack: AnyAttack | None = None,
    surrogate: Explain | None = None,
) -> KeptExplanation:
    """Look for the smallest change that changes the decision while the label's explanation stays as it was.

    From the attack's answer on, each step goes to the nearest point that meets both limits, decision and similarity,
    as their gradients promise; the explanation's gradient is taken through the explanation (double backward). What
    keeps both is remembered, and shortened at the end.

    A ReLU network's gradient is piecewise constant: its explanations hardly have a derivative, and the search is blind
    to them. The usual remedy is to take the derivative from a copy with smooth activations: ``surrogate`` is the same
    method on that copy. Only slopes come from it; limits and answers are those of the real model and method.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, finite, (N, ...).
        labels: classes, (N,).
        explain: the method, differentiable in its images unless there is a surrogate: gradients in it are taken with
            ``create_graph=True``, and nothing is detached.
        similarity: at which the explanation counts as kept, between 0 and 1.
        measure: ``"correlation"`` (Pearson's, of the maps) or ``"cosine"``.
        magnitude: compare magnitudes; otherwise signed values.
        steps: each a forward pass, an explanation, and its derivative; at least 1.
        bounds: the box that images must stay in.
        attack: what to start from; ``None`` is ``MinimumNormAttack(bounds=bounds)``.
        surrogate: a method whose derivative is followed in place of ``explain``'s own, which then needs none; its model
            must be in evaluation mode already.

    Returns:
        A ``KeptExplanation``.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments that cannot be used, and for an explanation that cannot be
            differentiated; the message says what to do.
        ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

    Warns:
        CaptumLipschitzWarning: the explanation's derivative was zero throughout, as a ReLU network's gradient's is.

    Example:
        >>> model = torch.nn.Linear(4, 3).double()
        >>> def gradients(images, targets):
        ...     images = images if images.requires_grad else images.requires_grad_()
        ...     top = model(images).gather(1, targets[:, None]).sum()
        ...     return torch.autograd.grad(top, images, create_graph=True)[0]
        >>> images = torch.rand(2, 4).double()
        >>> found = attack_keeping_explanation(model, images, model(images).argmax(1), explain=gradients)
        >>> torch.allclose(found.distances, found.unrestricted)  # a linear model's gradient never changes
        True

    References:
        Dombrowski et al. 2019, arXiv 1906.07983 (smooth surrogates; there the explanation is changed and the decision
        kept); Zhang et al. 2020, arXiv 1812.00891 (adversarial images that keep an interpretation).
    """
    images = check_inputs(images, "images").detach()
    labels = check_labels(labels, len(images)).to(images.device)
    check_explain(explain)
    _check_settings(similarity, measure, steps)
    if surrogate is not None:
        check_explain(surrogate, "surrogate")
    box = Bounds.of(bounds)
    if box is not None:
        box.check(images)
        box.check_shared(images)
    attack = MinimumNormAttack(bounds=box) if attack is None else attack
    terms = Terms(similarity, measure == "correlation", magnitude, box)
    with settled(), no_trace(model, images):
        images, labels = (x.clone() if x.is_inference() else x for x in (images, labels))
        correct, start = attack_and_verify(model, images, labels, attack)
        adversarial, distances = images.clone(), torch.full_like(start.distances, math.inf)
        similarities = torch.full_like(distances, math.nan)
        rows = (correct & torch.isfinite(start.distances)).nonzero().squeeze(1)
        if len(rows):
            search = Search(model, explain, images[rows], labels[rows], terms, surrogate)
            delta = search.run(start.images[rows] - images[rows], steps)
            answer = verified(model, images[rows], labels[rows], search.images_at(delta))
            alike = search.alike(answer.images)
            kept = (alike >= similarity) & torch.isfinite(answer.distances)
            adversarial[rows] = torch.where(rowwise(kept, answer.images), answer.images, images[rows])
            distances[rows] = answer.distances.where(kept, math.inf)
            similarities[rows] = alike.where(kept, math.nan)
    return KeptExplanation(
        adversarial_inputs=adversarial,
        distances=distances.where(correct, math.nan).cpu(),
        unrestricted=start.distances.where(correct, math.nan).cpu(),
        found=torch.isfinite(distances).cpu(),
        similarities=similarities.cpu(),
    )


def _check_settings(similarity: float, measure: str, steps: int) -> None:
    check_share(similarity, "similarity")
    if measure not in ("correlation", "cosine"):
        raise InvalidInputError(f"measure: expected 'correlation' or 'cosine', got {measure!r}")
    if isinstance(steps, bool) or not isinstance(steps, int):
        raise InvalidTypeError(f"steps: expected a whole number, got {steps!r}")
    if steps < 1:
        raise InvalidInputError(f"steps: expected at least 1, got {steps}")
