"""BatchNorm's averages after fine-tuning: they trail behind weights and activations that have moved."""

from __future__ import annotations

from typing import Any

import torch

from captum_lipschitz import recalibrate_batch_norm
from imagenet_training.pictures import Draw, loaded, mixed
from imagenet_training.training import Training
from imagenet_training.validation import whole_network

_IMAGES = 4096
_BATCH = 64


def recalibrate(training: Training, pictures: Any, *, workers: int) -> None:
    """Estimate them anew from some thousand training images; all processes must call, and all receive them."""
    network = whole_network(training)  # under fully_shard a copy, which the first process alone has
    if network is not None:
        source = torch.Generator().manual_seed(mixed(training.recipe.seed, "recalibration"))
        chosen = torch.randperm(len(pictures), generator=source)[:_IMAGES].tolist()  # in order a batch has one class
        draws = [Draw(number, 0) for number in chosen]
        batches = [draws[i : i + _BATCH] for i in range(0, len(draws), _BATCH)]
        inputs = (images.float() / 255 for images, _, _ in loaded(pictures, batches, workers=workers, pin=False))
        recalibrate_batch_norm(network, inputs)
        found = dict(network.named_buffers())
        for name, buffer in training.network.named_buffers():
            buffer.copy_(found[name])
    training.share_buffers()
