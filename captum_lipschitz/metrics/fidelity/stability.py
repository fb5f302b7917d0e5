"""Do near-identical images get the same explanation?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.geometry import Bounds
from captum_lipschitz.metrics.fidelity.draws import generators, uniform_noise
from captum_lipschitz.metrics.fidelity.outputs import broadcast, checked
from captum_lipschitz.metrics.fidelity.settings import check_count, check_size
from captum_lipschitz.metrics.maps import Explain, attributed, check_explain, position_maps
from captum_lipschitz.metrics.similarity import rank_correlation


def stability(
    explain: Explain,
    images: Tensor,
    targets: Tensor,
    *,
    draws: int = 1,
    radius: float = 1 / 510,
    magnitude: bool = True,
    bounds: Bounds | tuple[float, float] | None = None,
    scale: Tensor | float = 1.0,
    attributions: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Rank correlation of an image's map with those of images that differ from it by noise of rounding size.

    The explanation stays that of the same class: the target does not follow the decision.

    Args:
        explain: the method, ``explain(images, targets)``; it should bring its model in evaluation mode.
        images: floating, (N, ...), within the bounds.
        targets: classes, (N,).
        draws: noisy images, each explained anew.
        radius: noise is uniform in [-radius, radius], in the inputs' units: 1/510 is half a grey level of images in
            [0, 1], which storing them in 8 bits hides.
        magnitude: maps are sums of magnitudes over channels; otherwise of signed values.
        bounds: that noisy images are clamped to.
        scale: of each feature, broadcasts to the images: the noise is multiplied by it.
        attributions: of the images, where they are known already.
        generator: its initial seed is what counts, with each image's values; it is not moved on.

    Returns:
        (N,), float64, on the CPU: the mean over draws, in [-1, 1]; NaN where a map is the same everywhere.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments, or attributions, that cannot be used.

    Example:
        >>> gradient = lambda images, targets: torch.arange(4.0).expand(len(images), 4)  # of a linear model
        >>> float(stability(gradient, torch.rand(1, 4), torch.tensor([0])))
        1.0

    References:
        Ghorbani, Abid and Zou 2019, arXiv 1710.10547; Alvarez-Melis and Jaakkola 2018, arXiv 1806.08049.
    """
    images, targets = checked(images, targets, bounds)
    check_explain(explain)
    check_count(draws, "draws")
    check_size(radius, "radius")
    box, size = Bounds.of(bounds), radius * broadcast(scale, images, "scale")
    if attributions is None:
        attributions = attributed(explain, images, targets)
    maps = position_maps(attributions, images, magnitude=magnitude)
    sources = generators(images, generator, "stability")
    found = []
    for _ in range(draws):
        noisy = images + uniform_noise(sources, images, size)
        noisy = noisy if box is None else box.clamp(noisy)
        again = position_maps(attributed(explain, noisy, targets), images, magnitude=magnitude)
        found.append(rank_correlation(maps, again).cpu())
    return torch.stack(found).mean(0)
