"""A running average of a network's weights, which is often better than the last ones."""

from __future__ import annotations

import copy

import torch
from torch import nn


class RunningAverage:
    """A copy of a network whose parameters and buffers follow those of the network.

    torch's ``AveragedModel`` asks its device at each step whether it is the first.

    Args:
        network: that is trained.
        share: of the old that is kept at a step, in [0, 1); at first less, ``(1 + n) / (10 + n)`` at step n, so that
            weights that have learnt nothing do not stay in it.

    Attributes:
        network: the copy.
    """

    def __init__(self, network: nn.Module, share: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(requires_grad=False)
        self._share = share
        self._steps = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take the network's numbers of one more step in."""
        kept = min(self._share, (1 + self._steps) / (10 + self._steps)) if self._steps else 0.0
        self._steps += 1
        current = network.state_dict()
        for name, average in self.network.state_dict().items():
            if average.is_floating_point():
                average.lerp_(current[name], 1 - kept)
            else:
                average.copy_(current[name])
