"""The two pictures of a measurement: accuracy over perturbation size, and images beside their explanations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_lipschitz import AraResult
from captum_lipschitz._model import device_of
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz_mlflow.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 4  # images, where it is not told how many


def curve_figure(result: AraResult) -> Figure:
    """The accuracy-robustness curve; pyplot does not know of the figure, so it needs no closing."""
    from matplotlib.figure import Figure  # takes seconds, so only where a picture is wanted

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    result.plot(figure.subplots())
    return figure


def number_shown(images: Tensor, settings: Settings) -> int:
    """How many of the images are drawn; 0 where they are no images, or none are wanted.

    Args:
        images: (N, ...); drawn where they are (N, C, H, W) with 1 or 3 channels.
        settings: ``explanations``.

    Raises:
        InvalidInputError: explanations were asked for, of inputs that are no such images.
    """
    drawable = images.dim() == 4 and images.shape[1] in (1, 3)
    if settings.explanations and not drawable:
        raise InvalidInputError(
            f"explanations: expected images of shape (1 or 3, H, W) to draw, got {tuple(images.shape[1:])}; "
            "set input_shape, or explanations to 0"
        )
    wanted = SHOWN if settings.explanations is None else settings.explanations
    return wanted if drawable else 0


def explanation_figure(network: nn.Module, images: Tensor, labels: Tensor, settings: Settings) -> Figure:
    """Images, each beside what the network would have to see for more of its label.

    Args:
        network: returns logits (N, C).
        images: (N, C, H, W), C being 1 or 3.
        labels: (N,).
        settings: ``explanations``, ``rho``, ``bounds`` and ``class_names`` are used.
    """
    from captum_lipschitz import AdversarialAttribution, visualize  # imports Captum and matplotlib

    shown = one_of_each(labels, number_shown(images, settings))
    images, labels = images[shown].to(device_of(network)), labels[shown].to(device_of(network))
    low, high = _range(images, settings)
    rho = settings.rho if settings.rho is not None else 0.1 * (high - low)
    changes = AdversarialAttribution(network).attribute(images, target=labels, rho=rho, bounds=(low, high))
    return visualize(  # type: ignore[return-value]  # a subfigure is returned only where one is given
        changes, images, model=network, classes=labels, class_names=_class_names(settings), bounds=(low, high)
    )


def one_of_each(labels: Tensor, count: int) -> list[int]:
    """Places of ``count`` images, of as many classes as there are among them, the first ones of each; in order.

    Example:
        >>> one_of_each(torch.tensor([5, 5, 5, 2, 5, 0]), 4)
        [0, 1, 3, 5]
    """
    before: Counter[int] = Counter()
    ranked = []
    for place, label in enumerate(labels.tolist()):
        ranked.append((before[label], place))
        before[label] += 1
    return sorted(place for _, place in sorted(ranked)[:count])


def _class_names(settings: Settings) -> Sequence[str] | Mapping[int, str] | None:
    """By class number: the keys of a mapping are texts where it comes from JSON."""
    names = settings.class_names
    return {int(number): name for number, name in names.items()} if isinstance(names, Mapping) else names


def _range(images: Tensor, settings: Settings) -> tuple[float, float]:
    """Values drawn darkest and brightest: the bounds, else [0, 1] where that holds the images, else their own."""
    if settings.bounds is not None:
        return float(settings.bounds[0]), float(settings.bounds[1])
    low, high = (float(value) for value in torch.aminmax(images))
    return (0.0, 1.0) if low >= 0 and high <= 1 else (low, max(high, low + 1e-6))
