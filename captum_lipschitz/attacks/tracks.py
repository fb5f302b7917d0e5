"""What a minimal search remembers: several tracks for each image, and each image's best answer."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.geometry import Norm

_GAIN = 1e-3  # relative; smaller gains do not keep a track going


class Tracks:
    """Searches in progress, T of them, R for each of the N images in turn: T = N * R.

    Attributes:
        image: (T,), which row of the problem a track belongs to.
        route: (T,), which of the criterion's routes it was sent along.
        delta: (T, ...), where it is.
        previous: (T, ...), where it was a step earlier.
        overshoot: (T,), how far behind the boundary it aims, relative to its perturbation.
        step: (T,), steps taken.
        size: (T,), the smallest perturbation on it that met the criterion, ``inf`` before there is one.
        improved_at: (T,), the step of its last noticeable gain.
        open: (T,) bool; a track is closed when it gains nothing more, or was never there.
    """

    _FIELDS = ("image", "route", "delta", "previous", "overshoot", "step", "size", "improved_at", "open", "_noted")

    def __init__(self, delta: Tensor, route: Tensor, *, overshoot: float) -> None:
        """Start tracks at ``delta``, (N, R, ...), along ``route``, (N, R); those with route -1 are closed."""
        images, self.per_image = route.shape
        self.image = torch.arange(images, device=delta.device).repeat_interleave(self.per_image)
        self.route = route.flatten()
        self.delta, self.previous = delta.flatten(0, 1), delta.flatten(0, 1).clone()
        self.overshoot = torch.full_like(self.delta.flatten(1)[:, 0], overshoot)
        self.size, self._noted = (torch.full_like(self.overshoot, torch.inf) for _ in range(2))
        self.step, self.improved_at = torch.zeros_like(self.image), torch.zeros_like(self.image)
        self.open = self.route >= 0

    def __len__(self) -> int:
        return len(self.image)

    def keep(self, per_image: int, norm: Norm) -> None:
        """Go on with each image's most promising tracks: those with the smallest answer, else the nearest boundary."""
        if per_image >= self.per_image:
            return
        # A track without an answer stands about where the boundary is: it comes after those that have one.
        answered = torch.isfinite(self.size)
        length = torch.where(answered, self.size, norm.size(self.delta)).reshape(-1, self.per_image)
        group = torch.where(self.route < 0, 2, torch.where(answered, 0, 1)).reshape(-1, self.per_image)
        order = length.argsort(dim=1, stable=True)
        order = order.gather(1, group.gather(1, order).argsort(dim=1, stable=True))
        chosen = order[:, :per_image]
        first = torch.arange(len(order), device=order.device)[:, None] * self.per_image
        index = (first + chosen).flatten()
        for name in self._FIELDS:
            setattr(self, name, getattr(self, name)[index])
        self.per_image = per_image

    def steps(self, number: int) -> Tensor:
        """The same number of steps for each track, (T,)."""
        return torch.full_like(self.image, number)

    def renew_patience(self) -> None:
        """Count the steps without a gain anew; tracks that had given up go on."""
        self.improved_at = self.step.clone()
        self.open = self.route >= 0

    def note(self, rows: Tensor, size: Tensor, met: Tensor) -> None:
        """What the tracks ``rows`` have found: perturbations of ``size``, (n,), that met the criterion or not, (n,).

        A gain is noticeable measured from the last noticeable one, so that many small gains count together.
        """
        self.size[rows] = torch.where(met, torch.minimum(size, self.size[rows]), self.size[rows])
        noted = self._noted[rows]
        noticeable = torch.isinf(noted) | (met & (size < (1 - _GAIN) * noted))
        self.improved_at[rows] = torch.where(noticeable, self.step[rows], self.improved_at[rows])
        self._noted[rows] = torch.where(noticeable & met, size, noted)


class Best:
    """Each image's smallest perturbation that met the criterion, whichever track found it.

    Attributes:
        delta: (N, ...), zero before there is one.
        size: (N,), ``inf`` before there is one.
    """

    def __init__(self, problem: Problem) -> None:
        self.delta = torch.zeros_like(problem.inputs)
        self.size = torch.full_like(problem.inputs.flatten(1)[:, 0], torch.inf)

    def update(self, image: Tensor, delta: Tensor, size: Tensor, met: Tensor) -> None:
        """Take what is smaller; ``image``, (n,), may name an image several times: the first of equals is taken."""
        size = torch.where(met, size, torch.full_like(size, torch.inf))
        smallest = self.size.scatter_reduce(0, image, size, "amin")
        winners = ((size == smallest[image]) & (size < self.size[image])).nonzero().squeeze(1)
        for row in winners.flip(0).tolist():  # the first of equals is written last
            self.delta[image[row]] = delta[row]
        self.size = smallest
