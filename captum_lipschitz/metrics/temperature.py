"""The temperature at which a model's probabilities fit best, and areas below chance before and after it is applied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._memory import one_room
from captum_lipschitz._model import check_inputs, check_labels, device_of, logits_of
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.criteria import BelowChance
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.ara import accuracy_robustness_area
from captum_lipschitz.metrics.data import Data, batches
from captum_lipschitz.metrics.result import AraResult
from captum_lipschitz.objectives import logit

_STEPS = 200  # halvings alone pass through every exponent of float64 in fewer
_PRECISION = 1e-13  # of log T
_LIMIT = 80.0  # log of how far T may lie from the logits' own scale: beyond it float64's products end


@dataclass(frozen=True)
class BelowChanceAreas:
    """The BTR area as the logits stand, and with logits divided by a temperature fitted on other images.

    Attributes:
        raw: criterion ``BelowChance()``; multiplying all logits by a constant changes it.
        fitted: criterion ``BelowChance(temperature=temperature)``; multiplying all logits by a constant does not.
        temperature: T, above 0; above 1 where the model is overconfident.
    """

    raw: AraResult
    fitted: AraResult
    temperature: float

    def __str__(self) -> str:
        return f"raw {self.raw}\nat T = {self.temperature:.4g} {self.fitted}"

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON's types."""
        return {"raw": self.raw.to_dict(), "fitted": self.fitted.to_dict(), "temperature": self.temperature}


@one_room()
def below_chance_areas(model: Model, data: Data, *, held_out: Data, **settings: Any) -> BelowChanceAreas:
    """The BTR area raw and at a fitted temperature: a gain that the second does not show was calibration.

    Args:
        model: maps inputs (N, ...) to logits (N, C).
        data: images measured, ``(images, labels)`` or batches that can be gone through twice.
        held_out: other images, which the temperature is fitted on.
        settings: of ``accuracy_robustness_area``, all but ``criterion``.

    Returns:
        ``BelowChanceAreas``: both results and the temperature.

    Raises:
        InvalidTypeError: ``data`` that can be gone through only once; unknown settings raise ``TypeError``.
        InvalidInputError: as ``fit_temperature`` and ``accuracy_robustness_area``.

    Example:
        >>> model = torch.nn.Linear(4, 3)
        >>> images, labels = torch.randn(90, 4), torch.arange(90) % 3
        >>> with torch.no_grad():
        ...     images += model.weight[labels]
        >>> areas = below_chance_areas(model, (images[:30], labels[:30]), held_out=(images[30:], labels[30:]))
        >>> areas.raw.criterion, areas.temperature > 0
        ('BelowChance()', True)

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("BTR"); Guo et al. 2017, arXiv 1706.04599 (temperature).
    """
    if isinstance(data, Iterator):
        raise InvalidTypeError(f"data: expected batches that can be gone through twice, got {type(data).__name__}")
    temperature = fit_temperature(model, held_out, device=settings.get("device"))
    return BelowChanceAreas(
        raw=accuracy_robustness_area(model, data, criterion=BelowChance(), **settings),
        fitted=accuracy_robustness_area(model, data, criterion=BelowChance(temperature=temperature), **settings),
        temperature=temperature,
    )


@one_room()
def fit_temperature(model: Model, data: Data, *, device: torch.device | str | None = None) -> float:
    """The temperature T at which ``softmax(logits / T)`` fits labels best: the least mean negative log-likelihood.

    In 1 / T the mean is convex, so there is one answer or none: its slope there is mean over images of
    ``sum_j p_j z_j - z_y``, rising, and its zero is found by Newton's steps kept within a bracket, in float64.
    Fit it on images that are not measured, or it makes the model look better than it is.

    Args:
        model: maps inputs (N, ...) to logits (N, C); run in evaluation mode and left as it was.
        data: held-out ``(images, labels)`` or batches.
        device: where to run; ``None`` is the model's device.

    Returns:
        T, above 0. Multiplying the logits by a constant multiplies it by the same.

    Raises:
        InvalidInputError: no finite T above 0 is best: every image is classified rightly (the fit improves down to
            T = 0), or labels have on average no larger logits than other classes (it improves up to T = infinity).
        InvalidTypeError, ModelOutputError: for data or a model that cannot be used.

    Example:
        >>> logits = torch.tensor([[2.0, 0.0], [2.0, 0.0], [2.0, 0.0], [0.0, 2.0]])
        >>> labels = torch.tensor([0, 0, 1, 1])  # three in four are right: log-odds should be log 3, and are 2
        >>> round(fit_temperature(lambda images: images, (logits, labels)) * math.log(3), 6)
        2.0

    References:
        Guo, Pleiss, Sun and Weinberger 2017, "On calibration of modern neural networks", arXiv 1706.04599.
    """
    logits, labels = _logits(model, data, torch.device(device) if device is not None else device_of(model))
    own = logit(logits, labels)
    largest = logits.amax(1)
    if not float((own - logits.mean(1)).mean()) > 0:
        raise InvalidInputError(
            "data: expected labels with larger logits than other classes on average, got none: the larger the "
            "temperature the better the fit; is the model trained, and do the labels belong to the images?"
        )
    if bool((own == largest).all()):
        raise InvalidInputError(
            f"data: expected some images that the model gets wrong, got all {len(labels)} right: the smaller the "
            "temperature the better the fit; use more or harder held-out images"
        )
    scale = float((largest - logits.amin(1)).mean())
    scaled = (logits - own[:, None]) / scale
    return scale / math.exp(_rising_zero(lambda u: _slope(scaled, u)))


def _slope(excess: Tensor, log_beta: float) -> tuple[float, float]:
    """Slope in beta of the mean negative log-likelihood, and its slope in log beta; excess is ``z_j - z_y``, (N, C)."""
    beta = math.exp(log_beta)
    p = (beta * excess).softmax(1)
    mean = (p * excess).sum(1, keepdim=True)
    variance = (p * (excess - mean).square()).sum(1)
    return float(mean.mean()), beta * float(variance.mean())


def _rising_zero(function: Callable[[float], tuple[float, float]]) -> float:
    """Where a rising function is zero: Newton's steps, halving the bracket where one leaves it."""
    low, high = -_LIMIT, _LIMIT
    if function(low)[0] > 0 or function(high)[0] < 0:
        raise InvalidInputError(f"data: expected a temperature within exp({_LIMIT}) of the logits' scale, found none")
    at = 0.0
    for _ in range(_STEPS):
        value, slope = function(at)
        low, high = (low, at) if value > 0 else (at, high)
        step = at - value / slope if slope > 0 else math.inf
        if abs(step - at) <= _PRECISION or high - low <= _PRECISION:
            return at
        following = step if low < step < high else (low + high) / 2
        at = following
    raise InvalidInputError(f"data: the temperature did not settle in {_STEPS} steps")


def _logits(model: Model, data: Data, device: torch.device | None) -> tuple[Tensor, Tensor]:
    """All images' logits, (N, C) float64, and labels, (N,), on the CPU."""
    found: list[tuple[Tensor, Tensor]] = []
    for images, labels in batches(data, check_labels):
        check_inputs(images, "images")
        inputs = images.detach().to(device or images.device)
        with settled(), no_trace(model, inputs), torch.no_grad():
            logits = logits_of(model, inputs)
        found.append((logits.cpu().double(), check_labels(labels.cpu(), len(inputs), logits.shape[1])))
    if not found:
        raise InvalidInputError("data: expected at least one batch, got none")
    return torch.cat([logits for logits, _ in found]), torch.cat([labels for _, labels in found])
