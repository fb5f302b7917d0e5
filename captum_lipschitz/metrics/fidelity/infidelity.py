"""Infidelity by Captum: does the explanation predict what the removal of parts does to the output?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.metrics.fidelity.draws import generators
from captum_lipschitz.metrics.fidelity.outputs import broadcast, checked, logits_of
from captum_lipschitz.metrics.fidelity.settings import check_count
from captum_lipschitz.metrics.maps import at_input_shape
from captum_lipschitz.objectives import Objective, as_objective

_ROWS = 256  # images in one call of Captum's


def infidelity(
    model: Model,
    images: Tensor,
    targets: Tensor,
    attributions: Tensor,
    *,
    contributions: bool = False,
    samples: int = 32,
    reference: Tensor | float = 0.0,
    objective: Objective | str = "logit",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Share of the output's mean squared change that an explanation does not predict when random blocks are removed.

    Captum's infidelity with ``normalize=True``, which first scales each explanation in the best way, over the mean
    squared change itself. So neither the scale of the explanation nor that of the output counts, and images and models
    can be compared. The best scale may be negative: an explanation of the wrong sign is as good as one of the right.

    A removed block is a box of positions, sides drawn evenly from 1 to half of the picture's; of rows, each feature is
    removed with probability one half. A sensitivity predicts its inner product with what was taken away; a
    contribution predicts its sum over the block, Captum's binary perturbation for global attributions.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, (N, ...).
        targets: classes, (N,).
        attributions: of the images' shape, or coarser ones, (N, 1, h, w).
        contributions: attributions are contributions to the output relative to ``reference`` (InputXGradient,
            IntegratedGradients, Occlusion, LIME, Grad-CAM) rather than sensitivities or directions (gradients,
            adversarial changes).
        samples: blocks for each image.
        reference: what removed values become, broadcasts to the images; Captum's methods take 0.
        objective: the output that changes: ``"logit"``, ``"log_odds"``, ``"margin"``, ``"cross_entropy"``.
        generator: its initial seed is what counts, with each image's values; it is not moved on.

    Returns:
        (N,), float64, on the CPU, in [0, 1]: 0 where the output changes exactly as the explanation says, 1 for one
        that says nothing; NaN where no removal changes the output, or attributions are not finite.

    Raises:
        InvalidInputError, InvalidTypeError, ModelOutputError: for what cannot be used.

    Example:
        >>> model = torch.nn.Linear(5, 2).double()
        >>> rows, targets = torch.rand(1, 5).double(), torch.tensor([1])
        >>> gradient = model.weight[1:]
        >>> [round(float(infidelity(model, rows, targets, a)), 6) for a in (gradient, torch.zeros(1, 5))]
        [0.0, 1.0]

    References:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar 2019, arXiv 1901.09392, definition 2.1 and section 2.3 ("square
        removal").
    """
    from captum.metrics import infidelity as captum_infidelity

    images, targets = checked(images, targets)
    check_count(samples, "samples")
    objective = as_objective(objective)
    absent = broadcast(reference, images, "reference")
    values = at_input_shape(attributions, images).detach().double()
    finite = torch.isfinite(values).flatten(1).all(1)
    removed = [_removed(source, images[0], samples) for source in generators(images, generator, "infidelity")]
    found = []
    with settled(), no_trace(model, images):
        for rows in torch.arange(len(images)).split(max(1, _ROWS // samples)):
            masks = torch.cat([removed[row] for row in rows]).to(images.device)
            parts = _Removal(model, objective, targets[rows], masks, absent[rows], contributions=contributions)
            unexplained = captum_infidelity(
                parts.output, parts.perturbed, images[rows], values[rows].nan_to_num(), n_perturb_samples=samples,
                normalize=True,
            )  # fmt: skip
            change = parts.mean_squared_change()
            share = (unexplained / change.where(change > 0, torch.ones_like(change))).clamp(0, 1)
            found.append(share.where((change > 0) & finite[rows], torch.nan).cpu())
    return torch.cat(found)


class _Removal:
    """Given blocks removed from images, as the functions that Captum asks for; what it was answered is kept."""

    def __init__(
        self, model: Model, objective: Objective, targets: Tensor, masks: Tensor, absent: Tensor, *, contributions: bool
    ) -> None:
        self._model = model
        self._objective = objective
        self._targets = targets
        self._masks = masks
        self._absent = absent
        self._contributions = contributions
        self._outputs: list[Tensor] = []  # of the changed images, then of the clean ones

    def output(self, inputs: Tensor) -> Tensor:
        copies = len(inputs) // len(self._targets)
        values = self._objective(logits_of(self._model, inputs, self._targets), self._targets.repeat_interleave(copies))
        self._outputs.append(values)
        return values

    def perturbed(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        copies = len(inputs) // len(self._targets)
        changed = torch.where(self._masks, self._absent.repeat_interleave(copies, 0), inputs)
        away = self._masks.expand_as(inputs) if self._contributions else inputs - changed
        return away.double(), changed

    def mean_squared_change(self) -> Tensor:
        changed, clean = self._outputs
        return (changed.reshape(len(clean), -1) - clean[:, None]).square().mean(1)


def _removed(source: torch.Generator, image: Tensor, samples: int) -> Tensor:
    """Where blocks are removed from one image: (samples, 1, H, W) bool, or (samples, F) for rows."""
    if image.dim() == 1:
        return torch.randint(2, (samples, len(image)), generator=source).bool()
    masks = torch.ones(samples, *[1] * image.dim(), dtype=torch.bool)
    for axis, side in enumerate(image.shape[1:]):
        lengths = torch.randint(1, max(1, side // 2) + 1, (samples, 1), generator=source)
        starts = (torch.rand(samples, 1, generator=source) * (side - lengths + 1)).long()
        places = torch.arange(side)
        inside = (places >= starts) & (places < starts + lengths)
        masks = masks & inside.reshape(samples, *[1] * (axis + 1), side, *[1] * (image.dim() - axis - 2))
    return masks
