"""Does the model do what the explanation promises? Move the image along it, and look at the decision."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.geometry import RMSE, Bounds, rowwise
from captum_lipschitz.metrics.fidelity.outputs import checked, logits_of, usable
from captum_lipschitz.metrics.fidelity.settings import check_size
from captum_lipschitz.metrics.maps import at_input_shape
from captum_lipschitz.objectives import log_odds

_DOUBLINGS, _BISECTIONS = 20, 50


class Behaviour(NamedTuple):
    """What moves along an explanation and against it do, each (N,) float64 on the CPU; NaN where it says nothing.

    Attributes:
        toward: gain of the target's log-odds by the move along, per unit of its size.
        away: loss of them by the move against, per unit of its size.
        toward_size: size of the move along, RMSE: ``rho``, or less where the bounds leave no more room.
        away_size: of the move against.
    """

    toward: Tensor
    away: Tensor
    toward_size: Tensor
    away_size: Tensor


def behaviour(
    model: Model,
    images: Tensor,
    targets: Tensor,
    attributions: Tensor,
    *,
    rho: float = 0.1,
    bounds: Bounds | tuple[float, float] | None = None,
    scale: Tensor | float | None = None,
) -> Behaviour:
    """Move each image along its explanation by RMSE ``rho``, and against it: by how much do the log-odds follow?

    What is moved along are the attributions as they are, clamped to the bounds and made so long that the move has
    size ``rho`` after that; coarser ones are enlarged and the same for all channels. That is fair to what claims to be
    a direction (adversarial changes, signed gradients). A map without signs, as of absolute gradients, only brightens
    where it is large; a contribution (InputXGradient) tells how much a feature supports the target, which is
    a direction only as far as more of the feature supports it more.

    Args:
        model: maps (N, ...) to logits (N, C); a module is run in evaluation mode and left as it was.
        images: floating, (N, ...), within the bounds.
        targets: classes, (N,).
        attributions: of the images' shape, or coarser ones, (N, 1, h, w).
        rho: size of the move, RMSE in the inputs' units.
        bounds: that images stay in; ``None`` for none.
        scale: positive, broadcasts to one image: sizes are then of the move over the scale, as of ``RMSE(scale)``.

    Returns:
        ``Behaviour``: changes of the log-odds in nats, each (N,).

    Raises:
        InvalidInputError, InvalidTypeError, ModelOutputError: for what cannot be used.

    Example:
        >>> model = lambda rows: torch.stack([3 * rows[:, 0], torch.zeros(len(rows))], 1)
        >>> row, target = torch.tensor([[0.5]]), torch.tensor([0])
        >>> moved = behaviour(model, row, target, torch.tensor([[1.0]]), rho=0.25)
        >>> round(float(moved.toward), 4), round(float(moved.away), 4)
        (3.0, 3.0)

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (explanations that are changes of the image).
    """
    images, targets = checked(images, targets, bounds)
    check_size(rho, "rho")
    norm, box = RMSE(scale), Bounds.of(bounds)
    norm.check(images)
    direction = at_input_shape(attributions, images).detach().double()
    known = usable(direction)
    direction = direction.where(rowwise(known, direction), torch.zeros_like(direction))
    with settled(), no_trace(model, images):
        start = log_odds(logits_of(model, images, targets), targets)
        gains, sizes = [], []
        for sign in (1, -1):
            moved = _moved(images, sign * direction, rho, norm, box)
            size = norm.size(moved.double() - images.double())
            change = sign * (log_odds(logits_of(model, moved), targets) - start)
            gains.append((change / size).where(known & (size > 0), torch.nan).cpu())
            sizes.append(size.where(known, torch.nan).cpu())
    return Behaviour(gains[0], gains[1], sizes[0], sizes[1])


def _moved(images: Tensor, direction: Tensor, rho: float, norm: RMSE, box: Bounds | None) -> Tensor:
    """Images at distance ``rho`` along a direction after clamping, or as far as the box allows."""
    start = images.double()
    peak = direction.flatten(1).abs().amax(1)
    unit = norm.normalised(direction / rowwise(peak.where(peak > 0, torch.ones_like(peak)), direction))

    def point(length: Tensor) -> Tensor:
        ahead = start + rowwise(length, start) * unit
        return ahead if box is None else box.clamp(ahead)

    near = torch.zeros(len(images), dtype=torch.float64, device=images.device)
    far = torch.full_like(near, rho)
    if box is None:
        return point(far).to(images.dtype)
    for _ in range(_DOUBLINGS):
        short = norm.size(point(far) - start) < rho
        if not bool(short.any()):
            break
        near, far = near.where(~short, far), far.where(~short, 2 * far)
    for _ in range(_BISECTIONS):
        middle = (near + far) / 2
        short = norm.size(point(middle) - start) < rho
        near, far = near.where(~short, middle), far.where(short, middle)
    return box.clamp(point(far).to(images.dtype))
