"""Random order, flips and crops, drawn and applied where the images lie."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from cifar10_training.images import Part

PADDING = 4


def shuffled(part: Part, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of augmented batches; the images that are left over at the end are left out.

    Args:
        part: images and labels.
        batch_size: N.
        generator: on the images' device.

    Yields:
        Inputs, (N, 3, 32, 32) float32 in [0, 1], and labels, (N,).
    """
    order = torch.randperm(len(part), generator=generator, device=generator.device)
    for rows in order.split(batch_size):
        if len(rows) == batch_size:
            yield augmented(part.images[rows], generator).float() / 255, part.labels[rows]


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image padded by 4 pixels that repeat its edge, cut out at random in its own size, mirrored with chance 1/2.

    Padding, crop and mirror are one look-up: a pixel's row and column, moved and held within the image.

    Args:
        images: (N, 3, H, W) of any dtype.
        generator: on the images' device.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods (augmentation of CIFAR-10).
    """
    count, channels, height, width = images.shape
    device = images.device
    moves = torch.randint(-PADDING, PADDING + 1, (2, count, 1), generator=generator, device=device)
    mirrored = torch.randint(2, (count, 1), generator=generator, device=device) == 1
    rows = (torch.arange(height, device=device) + moves[0]).clamp(0, height - 1)
    columns = (torch.arange(width, device=device) + moves[1]).clamp(0, width - 1)
    columns = torch.where(mirrored, columns.flip(1), columns)
    image = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(channels, device=device)[:, None, None]
    return images[image, channel, rows[:, None, :, None], columns[:, None, None, :]]
