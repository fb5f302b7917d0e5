"""Random draws that belong to an image: the same whatever its neighbours, its place or its chunk."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.metrics.fidelity.outputs import digest

_SEED = 0


def seed_of(generator: torch.Generator | None) -> int:
    """The seed that a generator started with: it is read and not moved on; ``None`` is a fixed one."""
    if generator is None:
        return _SEED
    if not isinstance(generator, torch.Generator):
        raise InvalidTypeError(f"generator: expected a torch.Generator or None, got {type(generator).__name__}")
    return generator.initial_seed()


def generators(images: Tensor, generator: torch.Generator | None, purpose: str) -> list[torch.Generator]:
    """A source of random numbers for each image, (N, ...): its seed is a hash of the image, the seed and the purpose.

    Numbers are drawn on the CPU, so that they are the same for every device.

    Example:
        >>> images = torch.rand(3, 4)
        >>> whole = [torch.rand(1, generator=g) for g in generators(images, None, "example")]
        >>> torch.equal(whole[2], torch.rand(1, generator=generators(images[2:], None, "example")[0]))
        True
    """
    start = f"{seed_of(generator)} {purpose} ".encode()
    seeds = [int.from_bytes(digest(image, start), "big") >> 1 for image in images.detach().cpu()]
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def uniform_noise(sources: list[torch.Generator], images: Tensor, radius: Tensor | float) -> Tensor:
    """Independent values in [-radius, radius] for each image, (N, ...), each from its own source."""
    noise = torch.stack([torch.rand(images.shape[1:], generator=source) for source in sources])
    return (2 * noise.to(images) - 1) * radius
