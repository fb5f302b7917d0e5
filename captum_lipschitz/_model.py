"""Running somebody else's model: arguments checked first, outputs checked; every trace is removed by ``no_trace``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_lipschitz._memory import in_chunks
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import DisconnectedModelError, InvalidInputError, InvalidTypeError, ModelOutputError


class RowwiseModel(ABC):
    """A model that needs more of each image than its values: an attack that selects images selects from it too."""

    @abstractmethod
    def __call__(self, inputs: Tensor, /) -> Tensor:
        """Logits, (N, C), of exactly its own images, (N, ...)."""

    @abstractmethod
    def rows(self, index: Tensor) -> RowwiseModel:
        """The model for a selection of its images, (M,) int64, any of them as often as wanted."""


def check_inputs(inputs: object, name: str = "inputs", *, values: bool = True, at_least: int = 2) -> Tensor:
    """A non-empty, finite, floating tensor of shape (N, ...), or an exception that says what came instead.

    Looking at values waits for the device; without ``values`` only type and shape are checked, here and below.
    Fewer dimensions than ``at_least`` are refused.
    """
    if not isinstance(inputs, Tensor):
        raise InvalidTypeError(f"{name}: expected a tensor, got {type(inputs).__name__}")
    if not inputs.is_floating_point():
        raise InvalidTypeError(
            f"{name}: expected floating point values (images in [0, 1]), got {inputs.dtype}; convert with images / 255"
        )
    if inputs.dim() < at_least or inputs.numel() == 0:
        raise InvalidInputError(f"{name}: expected a non-empty batch of shape (N, ...), got {tuple(inputs.shape)}")
    if values and not bool(torch.isfinite(inputs).all()):
        raise InvalidInputError(f"{name}: expected finite values, got NaN or infinity")
    return inputs


def check_labels(
    labels: object, num_images: int, num_classes: int | None = None, name: str = "labels", *, values: bool = True
) -> Tensor:
    """One integer class per image, shape (N,), in 0..C-1 where C is known."""
    if not isinstance(labels, Tensor):
        raise InvalidTypeError(f"{name}: expected a tensor of classes, got {type(labels).__name__}")
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise InvalidTypeError(f"{name}: expected integer classes, got {labels.dtype}")
    if labels.shape != (num_images,):
        raise InvalidInputError(
            f"{name}: expected one class per image, shape ({num_images},), got {tuple(labels.shape)}"
        )
    if not values:
        return labels.long()
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or (num_classes is not None and high >= num_classes):
        upper = "C-1" if num_classes is None else num_classes - 1
        raise InvalidInputError(f"{name}: expected classes in 0..{upper}, got {low}..{high}")
    return labels.long()


def check_label_sets(labels: object, num_images: int, num_labels: int | None = None) -> Tensor:
    """Zeros, ones and minus ones, (N, K) as int64, of any real dtype."""
    if not isinstance(labels, Tensor):
        raise InvalidTypeError(f"labels: expected a tensor of 0, 1 and -1, got {type(labels).__name__}")
    width = "K" if num_labels is None else num_labels
    if (
        labels.dim() != 2
        or len(labels) != num_images
        or labels.shape[1] < 1
        or labels.shape[1] != (num_labels or labels.shape[1])
    ):
        raise InvalidInputError(
            f"labels: expected one row of labels per image, shape ({num_images}, {width}), got {tuple(labels.shape)}"
        )
    wrong = labels[(labels != 0) & (labels != 1) & (labels != -1)]
    if len(wrong):
        raise InvalidInputError(f"labels: expected 0, 1 or -1 (unknown), got {wrong[0].item()}")
    if labels.is_inference():  # autograd refuses to index with such tensors
        labels = labels.clone()
    return labels.long()


def check_logits(logits: object, num_images: int, *, finite: bool = True, at_least: int = 2) -> Tensor:
    """The model's output: a floating tensor, (N, C), C at least 2 or as told, and finite unless told otherwise."""
    if not isinstance(logits, Tensor):
        raise ModelOutputError(
            f"model: expected one tensor of logits, got {type(logits).__name__}; "
            "wrap the model in a function that returns its logits"
        )
    if not logits.is_floating_point() or logits.dim() != 2 or len(logits) != num_images:
        raise ModelOutputError(
            f"model: expected floating logits of shape ({num_images}, C), got {logits.dtype} {tuple(logits.shape)}"
        )
    if logits.shape[1] < at_least:
        raise ModelOutputError(
            "model: expected at least two classes, got one; a single output has no decision to change"
        )
    if finite and not bool(torch.isfinite(logits.detach()).all()):
        raise ModelOutputError("model: expected finite logits, got NaN or infinity")
    return logits


def logits_of(model: Model, images: Tensor, check: Callable[[object, int], Tensor] = check_logits) -> Tensor:
    """The model's logits of images, (N, ...), in fewer at once where memory runs out; ``check(logits, n)`` first."""

    def run(start: int, stop: int) -> Tensor:
        part = images if stop - start == len(images) else images[start:stop]
        return check(model(part), len(part))

    return torch.cat(in_chunks(run, len(images), what="the model", device=images.device))


def gradient(values: Tensor, inputs: Tensor, *, create_graph: bool = False, retain_graph: bool | None = None) -> Tensor:
    """Gradient of ``values.sum()`` with respect to ``inputs``; a missing dependence is an error, never zeros."""
    found: Tensor | None = None
    if values.requires_grad:
        (found,) = torch.autograd.grad(
            values.sum(), inputs, create_graph=create_graph, retain_graph=retain_graph, allow_unused=True
        )
    if found is None:
        raise DisconnectedModelError(
            "model: its output does not depend on its input through differentiable operations "
            "(a detach, a no_grad block, a conversion to numpy, or logits computed from other inputs)"
        )
    return found


def device_of(model: Model | nn.Module) -> torch.device | None:
    """The device of the model's first parameter or buffer, or ``None`` where it has neither."""
    if isinstance(model, nn.Module):
        for tensor in (*model.parameters(), *model.buffers()):
            return tensor.device
    return None
