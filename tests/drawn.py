"""Images to draw, and what a drawn figure holds."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.image import AxesImage
from torch import Tensor, nn


def random_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(len(shape)))


def random_attributions(*shape: int, size: float = 0.3) -> Tensor:
    return size * torch.randn(shape, generator=torch.Generator().manual_seed(7))


def linear_model(channels: int = 3, num_classes: int = 4) -> nn.Module:
    layer = nn.Linear(channels * 64, num_classes)
    with torch.random.fork_rng():
        torch.manual_seed(3)
        nn.init.normal_(layer.weight, std=0.2)
    return nn.Sequential(nn.Flatten(), layer)


def heat_maps(figure: Any) -> list[AxesImage]:
    """The heat maps, in the order they were drawn."""
    return [image for axes in figure.axes for image in axes.images if image.get_clim()[0] < 0]


def pictures_in(figure: Any) -> list[np.ndarray[Any, Any]]:
    """The images and perturbed images, in the order they were drawn."""
    images = [image for axes in figure.axes for image in axes.images if image.get_clim()[0] == 0]
    return [np.asarray(image.get_array()) for image in images]


def bars_in(figure: Any) -> list[Axes]:
    """The panels of probabilities, in the order they were drawn."""
    return [axes for axes in figure.axes if axes.containers]


def texts_in(axes: Axes) -> list[str]:
    return [text.get_text() for text in axes.texts]


def written(figure: Any) -> list[str]:
    """Every text of the panels, and above, below and beside them."""
    words = [w for a in figure.axes for w in (a.get_title(), a.get_xlabel(), a.get_ylabel(), *texts_in(a))]
    return [word for word in words if word]


def as_drawn(images: Tensor) -> np.ndarray[Any, Any]:
    return images.movedim(-3, -1).numpy()
