"""A problem's model as torchattacks expects models to be."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_lipschitz.attacks import Problem
from captum_lipschitz.attacks.fixed_size import GuardedModel


class ShownModel(nn.Module):
    """A problem's model with four-dimensional images, float values, and the face of a module.

    Images (N, C, H, W) are shown as they are, others as (N, D, 1, 1). Whatever torchattacks does to it (``train()``,
    ``backward()`` into parameters, looking for a device) stays here: the model itself is a plain function in it, and
    gradients end at the images.

    Args:
        problem: whose model and images.
        dtype: of the images and logits that torchattacks sees; the model gets the inputs' own.
        logits_factor: what logits are multiplied by, (N, 1) or one for all.
        lift_logits: whether each row's smallest logit is subtracted, for attacks that take 0 for the smallest there is.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        dtype: torch.dtype,
        logits_factor: Tensor | float = 1.0,
        lift_logits: bool = False,
    ) -> None:
        super().__init__()
        self._problem = problem
        self._model = GuardedModel(problem.model)
        self._dtype = dtype
        self._logits_factor = logits_factor
        self._lift_logits = lift_logits
        # torchattacks reads the device off the first parameter, and prints where there is none.
        self.anchor = nn.Parameter(torch.empty(0, device=problem.inputs.device), requires_grad=False)

    @property
    def backward_passes(self) -> int:
        """Backward passes that each image took part in so far; of a pass over M rows, M over the number of images."""
        return -(-self._model.backward_rows // len(self._problem))

    def images(self) -> Tensor:
        """The problem's images, (N, C, H, W) or (N, D, 1, 1)."""
        inputs = self._problem.inputs
        images = inputs if inputs.dim() == 4 else inputs.reshape(len(inputs), -1, 1, 1)
        return images.to(self._dtype).contiguous()

    def perturbations(self, adversarial_images: Tensor) -> Tensor:
        """From adversarial images to what was changed, shaped and typed as the problem's inputs."""
        inputs = self._problem.inputs
        return adversarial_images.detach().reshape(inputs.shape).to(inputs.dtype) - inputs

    def forward(self, images: Tensor) -> Tensor:
        inputs = self._problem.inputs
        logits = self._model(images.reshape(-1, *inputs.shape[1:]).to(inputs.dtype)).to(self._dtype)
        if self._lift_logits:
            logits = logits - logits.detach().amin(1, keepdim=True)
        return logits * self._logits_factor
