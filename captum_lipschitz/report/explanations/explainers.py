"""Methods of the gradient, of feature maps and the random map, each made for a model: Captum's classes but for ours."""

from __future__ import annotations

import torch
from captum.attr import (
    GuidedBackprop,
    InputXGradient,
    IntegratedGradients,
    LayerGradCam,
    NoiseTunnel,
    Saliency,
)
from torch import Tensor, nn

from captum_lipschitz._typing import Model
from captum_lipschitz.attr import AdversarialAttribution, register_with_captum
from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.metrics.maps import Explain
from captum_lipschitz.report.explanations.explaining import Setting, explaining, one_by_one, seed_of


def adversarial(model: Model, setting: Setting, *, rho: float, steps: int) -> Explain:
    """Ours, toward the target."""
    method = AdversarialAttribution(model)

    def answer(images: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = method.attribute(
            images,
            target=targets,
            rho=rho,
            n_steps=steps,
            norm=setting.norm,
            bounds=setting.bounds,
            objective="multi_label" if setting.multi_label else "log_odds",
        )
        return found

    return explaining(model, answer, setting)


def saliency(model: Model, setting: Setting) -> Explain:
    """The gradient of the logit, with its sign."""
    method = Saliency(model)
    return explaining(model, lambda x, t: method.attribute(x.requires_grad_(), t, abs=False), setting)


def input_x_gradient(model: Model, setting: Setting) -> Explain:
    """The gradient of the logit times the input."""
    method = InputXGradient(model)
    return explaining(model, lambda x, t: method.attribute(x.requires_grad_(), t), setting)


def guided_backprop(model: Model, setting: Setting) -> Explain:
    """The gradient with negative parts cut off at each ReLU and half-Huber ReLU."""

    def answer(images: Tensor, targets: Tensor) -> Tensor:
        with register_with_captum():
            found: Tensor = GuidedBackprop(model).attribute(images.requires_grad_(), targets)
        return found

    return explaining(model, answer, setting)


def grad_cam(model: Model, setting: Setting, *, layer: str) -> Explain:
    """The layer's feature maps weighed by their mean gradients, negative sums cut off as Selvaraju et al. do."""
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model: expected a module with a layer {layer!r}, got {type(model).__name__}")
    method = LayerGradCam(model, model.get_submodule(layer))

    def answer(images: Tensor, targets: Tensor) -> Tensor:
        found: Tensor = method.attribute(images.requires_grad_(), targets, relu_attributions=True)
        return found

    return explaining(model, answer, setting)


def integrated_gradients(model: Model, setting: Setting, *, steps: int) -> Explain:
    """The mean gradient on the way from a baseline, black where none is given, times the way."""
    method = IntegratedGradients(model)

    def answer(image: Tensor, target: Tensor) -> Tensor:
        start = origin(image, setting)
        found: Tensor = method.attribute(image, start, target, n_steps=steps, internal_batch_size=setting.rows)
        return found

    return explaining(model, one_by_one(answer), setting)


def origin(images: Tensor, setting: Setting) -> Tensor:
    """What Integrated Gradients starts from, of the images' shape: the baseline, or zero, moved into the bounds.

    Example:
        >>> from captum_lipschitz.geometry import Bounds
        >>> origin(torch.rand(1, 2), Setting(outputs=2, rows=1, bounds=Bounds(0.5, 1.0)))
        tensor([[0.5000, 0.5000]])
    """
    if setting.baseline is not None:
        return setting.baseline.to(images).expand_as(images)
    start = torch.zeros_like(images)
    return start if setting.bounds is None else setting.bounds.clamp(start)


def smooth_grad(model: Model, setting: Setting, *, samples: int, noise: float) -> Explain:
    """The mean gradient of noisy copies."""

    def answer(image: Tensor, target: Tensor) -> Tensor:
        # NoiseTunnel's noise makes images of half precision float32.
        method = NoiseTunnel(Saliency(lambda noisy: model(noisy.to(image.dtype))))
        found: Tensor = method.attribute(
            image,
            nt_samples=samples,
            nt_samples_batch_size=setting.rows,
            stdevs=noise * float(image.max() - image.min()),
            target=target,
            abs=False,
        )
        return found

    return explaining(model, one_by_one(answer, setting.seed), setting)


def random_map(model: Model, setting: Setting) -> Explain:
    """Normal draws that know nothing of the model: what any method has to beat."""

    def answer(image: Tensor, _: Tensor) -> Tensor:
        source = torch.Generator().manual_seed(seed_of(image, setting.seed))
        return torch.randn(image.shape, generator=source).to(image)

    return explaining(model, one_by_one(answer), setting)
