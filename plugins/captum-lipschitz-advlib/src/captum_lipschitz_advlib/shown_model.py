"""A problem as adv-lib expects it: a classifier and labels, to be misclassified or reached."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.attacks import Problem
from captum_lipschitz.criteria import Misclassified, Reaches


class ShownModel:
    """The function that adv-lib calls for logits, and what it is told to do to them.

    adv-lib knows two goals. ``Misclassified`` is its untargeted one and ``Reaches`` its targeted one: for them it is
    shown the model's own logits. Any other criterion with the signed value v is shown as a classifier with the two
    columns ``[v, 0]`` and the label 0, which is misclassified exactly where ``v < 0``. Its margin is v, and its cross
    entropy ``softplus(-v)``, so both of adv-lib's losses follow v's own gradient, the normal of its boundary.

    Logits that are not finite are shown as ones that miss the goal, without a gradient.

    Args:
        problem: whose model, images and criterion.
        overshoot: what a linearised distance, value over length of the gradient, comes out too long by: at least 1.

    Attributes:
        images: the problem's, contiguous (adv-lib projects views of them in place) and in float32 at least.
        labels: (N,), what adv-lib is told to leave or to reach.
        targeted: to be reached.
        backward_passes: counted so far, each over all images.
    """

    def __init__(self, problem: Problem, *, overshoot: float = 1.0) -> None:
        criterion = problem.criterion
        self._problem = problem
        self._overshoot = overshoot
        self._own_logits = type(criterion) in (Misclassified, Reaches)
        self.backward_passes = 0
        self.targeted = type(criterion) is Reaches
        if isinstance(criterion, Reaches) and self.targeted:
            self.labels = criterion.target.to(problem.labels).expand(len(problem))
        else:
            zeros = torch.zeros(len(problem), dtype=torch.int64, device=problem.inputs.device)
            self.labels = problem.labels if self._own_logits else zeros
        precise = torch.promote_types(problem.inputs.dtype, torch.float32)
        self.images = problem.inputs.to(precise).contiguous()

    def __call__(self, images: Tensor) -> Tensor:
        """Logits, (N, C) or (N, 2), of images shaped as ``images``."""
        logits = self._problem.model(images.to(self._problem.inputs.dtype))
        usable = torch.isfinite(logits).all(1, keepdim=True)
        if not self._own_logits:
            value = self._problem.criterion.value(logits, self._problem.labels)[:, None]
            logits = torch.cat([value, torch.zeros_like(value)], 1)
        shown = torch.where(usable, logits.to(self.images.dtype), self._missing(logits.shape[1]))
        if shown.requires_grad:
            shown.register_hook(self._counted)  # type: ignore[no-untyped-call]
        return shown

    def perturbations(self, adversarial_images: Tensor) -> Tensor:
        """From adversarial images to what was changed, typed as the problem's inputs."""
        inputs = self._problem.inputs
        return adversarial_images.to(inputs.dtype) - inputs

    def _missing(self, columns: int) -> Tensor:
        """Logits, (N, columns), that miss the goal."""
        at_label = torch.nn.functional.one_hot(self.labels, columns).to(self.images.dtype)
        return -at_label if self.targeted else at_label

    def _counted(self, gradient: Tensor) -> Tensor:
        self.backward_passes += 1
        return gradient / self._overshoot
