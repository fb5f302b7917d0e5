"""Max-sensitivity by Captum: how far does the explanation move when the image hardly does?"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.geometry import Bounds
from captum_lipschitz.metrics.fidelity.draws import generators, uniform_noise
from captum_lipschitz.metrics.fidelity.outputs import broadcast, checked, usable
from captum_lipschitz.metrics.fidelity.settings import check_count, check_size
from captum_lipschitz.metrics.maps import Explain, at_input_shape, attributed, check_explain


def max_sensitivity(
    explain: Explain,
    images: Tensor,
    targets: Tensor,
    *,
    samples: int = 3,
    radius: float = 0.02,
    bounds: Bounds | tuple[float, float] | None = None,
    scale: Tensor | float = 1.0,
    attributions: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Largest change of an explanation, relative to its own length, among noisy copies of the image.

    Captum's ``sensitivity_max``. A maximum over a few draws is a lower bound of the true one: methods are compared at
    the same number and radius only.

    Args:
        explain: the method, ``explain(images, targets)``; it should bring its model in evaluation mode.
        images: floating, (N, ...), within the bounds.
        targets: classes, (N,).
        samples: noisy copies, each explained anew.
        radius: noise is uniform in [-radius, radius], in the inputs' units; Captum's default is 0.02.
        bounds: that noisy images are clamped to.
        scale: of each feature, broadcasts to the images: the noise is multiplied by it.
        attributions: of the images, where they are known already.
        generator: its initial seed is what counts, with each image's values; it is not moved on.

    Returns:
        (N,), float64, on the CPU, at least 0, from L2 lengths; NaN where the explanation is zero, or not finite.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments, or attributions, that cannot be used.

    Example:
        >>> gradient = lambda images, targets: torch.arange(4.0).expand(len(images), 4)  # of a linear model
        >>> float(max_sensitivity(gradient, torch.rand(1, 4), torch.tensor([0])))
        0.0

    References:
        Yeh, Hsieh, Suggala, Inouye and Ravikumar 2019, arXiv 1901.09392, definition 3.1.
    """
    from captum.metrics import sensitivity_max

    images, targets = checked(images, targets, bounds)
    check_explain(explain)
    check_count(samples, "samples")
    check_size(radius, "radius")
    if attributions is None:
        attributions = attributed(explain, images, targets)
    known = usable(at_input_shape(attributions, images))
    box, sizes = Bounds.of(bounds), radius * broadcast(scale, images, "scale")
    sources = generators(images, generator, "max-sensitivity")

    def explained(inputs: tuple[Tensor, ...] | Tensor) -> tuple[Tensor, ...] | Tensor:
        """As Captum calls it: the images first, in a tuple, then one noisy copy of each at a time."""
        if not isinstance(inputs, Tensor):
            return (attributions.detach().double(),)
        return attributed(explain, inputs, targets).double()

    def noisy_copies(inputs: Tensor) -> Tensor:
        noisy = inputs + uniform_noise(sources, inputs, sizes)
        return noisy if box is None else box.clamp(noisy)

    found: Tensor = sensitivity_max(
        explained, images, noisy_copies, n_perturb_samples=samples, max_examples_per_batch=len(images)
    )
    return found.where(known, torch.nan).cpu()
