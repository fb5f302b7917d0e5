"""RobustBench's images, as its ``benchmark`` gets them, or one's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._model import device_of
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, MissingDependencyError

DATASETS = {"cifar10": 10_000, "cifar100": 10_000, "imagenet": 5_000}
"""RobustBench's data sets, each with the images that its leaderboard may use."""


def load_images(
    dataset: str,
    threat_model: str,
    *,
    n_examples: int | None,
    data_dir: str | Path,
    model_name: str | None,
    preprocessing: str | Callable[..., Any] | None,
) -> tuple[Tensor, Tensor]:
    """The first images of a test set, (N, 3, H, W), and labels, (N,), by RobustBench's preprocessing and loader.

    Raises:
        InvalidInputError: for a number of images that the data set does not have, or ImageNet without a preprocessing.
        MissingDependencyError: RobustBench cannot be imported; the message says what it lacks.
    """
    largest = DATASETS[dataset]
    count = largest if n_examples is None else n_examples
    if not isinstance(count, int) or not 1 <= count <= largest:
        raise InvalidInputError(f"n_examples: expected 1..{largest} images of {dataset}, got {n_examples!r}")
    if dataset == "imagenet" and preprocessing is None and model_name is None:
        raise InvalidInputError(
            "preprocessing: expected one for imagenet ('Res256Crop224', a transform, ...), or a model_name of the zoo, "
            "whose own it then is; got neither"
        )
    try:
        from robustbench.data import get_preprocessing, load_clean_dataset
        from robustbench.model_zoo.enums import BenchmarkDataset, ThreatModel
    except ImportError as error:
        raise MissingDependencyError(
            f"robustbench: cannot be imported ({error}). From PyPI it lacks two packages: pip install 'setuptools<81', "
            "and call captum_lipschitz_robustbench.provide_autoattack() before importing it (or install AutoAttack "
            "from its authors' repository)"
        ) from error
    kind = BenchmarkDataset(dataset)
    transform = get_preprocessing(kind, ThreatModel(threat_model), model_name, preprocessing)
    images, labels = load_clean_dataset(kind, count, str(data_dir), transform)
    return images, labels


def check_images(data: object, model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images and labels in the zoo's form.

    Raises:
        InvalidInputError, InvalidTypeError: for anything but (N, 3, H, W) floats in [0, 1] with N labels, or floats of
            another dtype than the model's parameters, unless it converts them and its logits by itself.
    """
    if not isinstance(data, tuple | list) or len(data) != 2 or not all(isinstance(part, Tensor) for part in data):
        raise InvalidTypeError(f"data: expected (images, labels), two tensors, got {type(data).__name__}")
    images, labels = data
    if not images.is_floating_point():
        raise InvalidTypeError(f"data: expected floating images in [0, 1], got {images.dtype}; divide by 255")
    if images.dim() != 4 or images.shape[1] != 3 or not images.numel():
        raise InvalidInputError(f"data: expected images of shape (N, 3, H, W), got {tuple(images.shape)}")
    low, high = (float(value) for value in torch.aminmax(images))
    if not (low >= 0 and high <= 1):
        raise InvalidInputError(
            f"data: expected images in [0, 1], got values from {low:.3g} to {high:.3g}; models in the zoo's form "
            "normalise by themselves"
        )
    _check_dtype(images, model)
    return images, labels


def _check_dtype(images: Tensor, model: nn.Module) -> None:
    """Refuse images of another dtype than the model's, unless it takes them and answers in theirs."""
    own = next((tensor.dtype for tensor in model.parameters() if tensor.is_floating_point()), images.dtype)
    if images.dtype == own:
        return
    first = images[:1].to(device_of(model))
    answer: object = None
    cause: Exception | None = None
    try:
        with settled(), no_trace(model, first), torch.no_grad():
            answer = model(first)
    except RuntimeError as error:
        cause = error
    if getattr(answer, "dtype", None) != images.dtype:
        # Not cast: the distances' precision, and in half precision the images themselves, would change unseen.
        raise InvalidTypeError(
            f"data: expected images of the model's dtype, {own}, got {images.dtype}; convert them, images.to({own}), "
            "or the model"
        ) from cause
