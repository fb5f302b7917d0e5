"""An explanation that knows nothing: what every other one has to beat."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.metrics.fidelity.draws import generators, seed_of
from captum_lipschitz.metrics.maps import Explain


def random_explanation(*, generator: torch.Generator | None = None) -> Explain:
    """A method whose attributions are independent standard normal values.

    They are drawn anew for every image and target, however little these differ, and are the same for the same ones.
    As they do not look at the model they do not change with it either, so this map fails the test of randomised
    parameters, as it should.

    Args:
        generator: its initial seed is what counts; it is not moved on. ``None`` is a fixed seed.

    Returns:
        ``explain(images (N, ...), targets (N,))``, of the images' shape.

    Example:
        >>> explain, images = random_explanation(), torch.rand(2, 3, 8, 8)
        >>> maps = explain(images, torch.tensor([0, 1]))
        >>> torch.equal(maps[1:], explain(images[1:], torch.tensor([1])))
        True
    """
    seed_of(generator)  # a wrong argument is told here, not at the first image

    def explain(images: Tensor, targets: Tensor) -> Tensor:
        maps = []
        for image, target in zip(images, targets, strict=True):
            (source,) = generators(image[None], generator, f"random map {int(target)}")
            maps.append(torch.randn(image.shape, generator=source))
        return torch.stack(maps).to(images)

    return explain
