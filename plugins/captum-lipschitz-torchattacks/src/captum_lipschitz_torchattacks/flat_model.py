"""A problem's model as torchattacks expects models to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from captum_lipschitz.attacks import Problem


class FlatModel(nn.Module):
    """A problem's model on images (N, D, 1, 1), as torchattacks wants four dimensions, float values and a module.

    Whatever torchattacks does to it (``train()``, ``backward()`` into parameters, looking for a device) stays here:
    the model itself is a plain function in it, and gradients end at the images.

    Args:
        problem: whose model and images.
        dtype: of the images and logits that torchattacks sees; the model gets the inputs' own.
        logits_factor: what logits are multiplied by, (N, 1) or one for all.

    Attributes:
        backward_passes: counted so far, each over all images of a batch.
    """

    def __init__(self, problem: Problem, *, dtype: torch.dtype, logits_factor: Tensor | float = 1.0) -> None:
        super().__init__()
        self.backward_passes = 0
        self._problem = problem
        self._dtype = dtype
        self._logits_factor = logits_factor
        # torchattacks reads the device off the first parameter, and prints where there is none.
        self.anchor = nn.Parameter(torch.empty(0, device=problem.inputs.device), requires_grad=False)

    def images(self) -> Tensor:
        """The problem's images, (N, D, 1, 1)."""
        inputs = self._problem.inputs
        return inputs.reshape(len(inputs), -1, 1, 1).to(self._dtype)

    def perturbations(self, adversarial_images: Tensor) -> Tensor:
        """From adversarial images, (N, D, 1, 1), to what was changed, shaped and typed as the problem's inputs."""
        inputs = self._problem.inputs
        return adversarial_images.reshape(inputs.shape).to(inputs.dtype) - inputs

    def run(self, images: Tensor) -> Tensor:
        """Logits, (N, C), of images (N, D, 1, 1), times the factor."""
        inputs = self._problem.inputs
        logits = self._problem.model(images.reshape(-1, *inputs.shape[1:]).to(inputs.dtype))
        return logits.to(self._dtype) * self._logits_factor

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            return self.run(images)
        logits: Tensor = _InputGradientOnly.apply(images, self)
        return logits


class _InputGradientOnly(torch.autograd.Function):
    """A model whose backward pass ends at its images: FAB's ``backward()`` would fill ``.grad`` of the parameters."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: FlatModel) -> Tensor:
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            logits = model.run(leaf)
        ctx.leaf, ctx.logits, ctx.model = leaf, logits, model
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.model.backward_passes += 1
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.leaf, gradients[0], retain_graph=True)
        return gradient, None
