"""The area of each class, and their mean: figures that do not depend on how many images a class has."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.metrics import area as _area


@dataclass(frozen=True)
class ClassArea:
    """The Accuracy-Robustness Area of one class's images.

    Attributes:
        label: the class.
        count: number of its images, at least 1.
        clean_accuracy: share of them that the model decides rightly, a fraction.
        area: integral over rho of ``max(0, acc_c(rho) - a0)``, with ``acc_c`` the share of the class's images whose
            distance is above rho, in the norm's units; ``inf`` where more than a share a0 was not found.
        interval: 95% interval from resampling the class's images; of one image it has no width, and says nothing.
        truncated_area: the area up to the class's largest distance found.
        not_found: number of its images for which nothing was found.
    """

    label: int
    count: int
    clean_accuracy: float
    area: float
    interval: tuple[float, float]
    truncated_area: float
    not_found: int


@dataclass(frozen=True)
class ByClass:
    """Every class that occurs, and the mean over them.

    Attributes:
        classes: from class to ``ClassArea``, in rising order; a class without an image is not there.
        chance_accuracy: a0, the accuracy of guessing in each class, a fraction.
        macro_area: mean of the classes' areas.
        macro_interval: 95% interval of it, each class's images resampled among themselves.
    """

    classes: dict[int, ClassArea]
    chance_accuracy: float
    macro_area: float
    macro_interval: tuple[float, float]

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON's types, classes as a list; an infinite one is ``None``."""
        fields = {**asdict(self), "classes": [asdict(one) for one in self.classes.values()]}
        figures: dict[str, Any] = _area.finite_or_none(fields)
        return figures


def areas_by_class(
    distances: Tensor,
    labels: Tensor,
    correct: Tensor,
    chance_accuracy: float,
    *,
    generator: torch.Generator | None = None,
) -> ByClass:
    """The area within each class and the mean of those.

    Args:
        distances: (N,), at least 0, ``inf`` where none was found.
        labels: classes, (N,).
        correct: (N,) bool.
        chance_accuracy: a0, the same for every class, a fraction.
        generator: of the bootstrap; ``None`` is a fixed seed.

    Example:
        >>> found, labels = torch.tensor([1.0, 1.0, 1.0, 4.0]), torch.tensor([0, 0, 0, 1])
        >>> areas_by_class(found, labels, found > 0, 0.5).macro_area  # (1 * 0.5 + 4 * 0.5) / 2
        1.25

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 (the area); Davison and Hinkley 1997, Bootstrap Methods and
        their Application, section 3.2 (resampling within strata).
    """
    draws = _area.bootstrap_generator(generator)
    classes, resampled = {}, []
    for label in labels.unique().tolist():
        rows = labels == label
        found = distances[rows]
        areas = _area.bootstrap_areas(found, chance_accuracy, generator=draws)
        resampled.append(areas)
        classes[label] = ClassArea(
            label=label,
            count=len(found),
            clean_accuracy=float(correct[rows].double().mean()),
            area=_area.area(found, chance_accuracy),
            interval=_area.percentile_interval(areas),
            truncated_area=_area.area(found, chance_accuracy, truncated=True),
            not_found=int(torch.isinf(found).sum()),
        )
    return ByClass(
        classes=classes,
        chance_accuracy=chance_accuracy,
        macro_area=sum(one.area for one in classes.values()) / len(classes),
        macro_interval=_area.percentile_interval(torch.stack(resampled).mean(0)),
    )
