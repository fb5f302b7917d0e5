"""scikit-learn's bundled handwritten digits, enlarged; and a small network for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz.errors import MissingDependencyError

_SIDE = 32
_TEST_IMAGES = 450
_SPLIT_SEED = 0


class Digits(NamedTuple):
    """Images (N, 1, 32, 32) in [0, 1] and labels (N,), for training and for testing."""

    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor


def load_digits() -> Digits:
    """The 1,797 digits of 8 x 8 pixels, enlarged bicubically to 32 x 32; 450 of them, always the same, for testing.

    At their own size there is little room between fragile and robust: 64 dimensions.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn import datasets, model_selection
    except ImportError as error:
        raise MissingDependencyError(
            "the digits come with scikit-learn: pip install 'captum-lipschitz[demo]'"
        ) from error
    digits = datasets.load_digits()
    small = torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16
    images = F.interpolate(small, size=(_SIDE, _SIDE), mode="bicubic", align_corners=False).clamp(0, 1)
    labels = torch.tensor(digits.target, dtype=torch.int64)
    train, test = model_selection.train_test_split(
        range(len(labels)), test_size=_TEST_IMAGES, random_state=_SPLIT_SEED, stratify=digits.target
    )
    return Digits(images[train], labels[train], images[test], labels[test])


def build_network(activation: Callable[[], nn.Module], *, seed: int, width: int = 16) -> nn.Sequential:
    """Three strided convolutions with BatchNorm, then a linear layer: (N, 1, 32, 32) to (N, 10).

    Args:
        activation: makes one activation.
        seed: of the weights; the global random state is left alone.
        width: channels of the first convolution; the others have two and four times as many.

    Returns:
        The network, in training mode.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        channels = 1
        for wider in (width, 2 * width, 4 * width):
            layers += [
                nn.Conv2d(channels, wider, 3, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(wider),
                activation(),
            ]
            channels = wider
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * (_SIDE // 8) ** 2, 10))
