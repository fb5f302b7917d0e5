"""What a measurement of the Accuracy-Robustness Area found: figures, curve, picture."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.metrics import area as _area
from captum_lipschitz.metrics.by_class import ByClass, ClassArea, areas_by_class
from captum_lipschitz.metrics.doubts import Doubt

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class AraResult:
    """An Accuracy-Robustness Area with its uncertainty, and all it was computed from.

    Attributes:
        area: the ARA, in the norm's units; an upper bound, as a stronger attack can only make it smaller. ``inf`` where
            the share of images for which nothing was found exceeds ``chance_accuracy``.
        interval: 95% interval of ``area`` from resampling the images; not of training seeds or the attack's looseness.
        truncated_area: the area up to the largest distance found; equal to ``area`` where everything was found.
        not_found: number of images for which nothing was found.
        clean_accuracy: share of images that the model decides rightly (the label is the argmax), a fraction.
        chance_accuracy: a0, accuracy of guessing, a fraction.
        class_chance_accuracy: a0 within one class: the fraction that was given as ``chance``, else 1 / C, as whoever
            guesses without looking at the image, by whatever rule, is right in 1 / C of the cases, averaged over the
            classes. (So the commonest class's share, which is right for all images together, is not used here.)
        distances: (N,), float64 on the CPU, in the data's order; 0 where the clean image meets the criterion, ``inf``
            where nothing was found.
        labels: (N,), on the CPU; -1 where not known; (N, K) for ``LabelFlips()``.
        correct: (N,) bool, on the CPU: the model decides the clean image rightly.
        gradient_evaluations: spent on all images together.
        norm: what distances are in, as ``Norm.unit`` says it: "rmse", or "rmse over scale 10".
        criterion: the criterion's ``repr``.
        attack: the attack's ``name``, or its class's.
        doubts: reasons to doubt the area, the gravest first; empty also where none were looked for.
    """

    area: float
    interval: tuple[float, float]
    truncated_area: float
    not_found: int
    clean_accuracy: float
    chance_accuracy: float
    class_chance_accuracy: float
    distances: Tensor
    labels: Tensor
    correct: Tensor
    gradient_evaluations: int
    norm: str
    criterion: str
    attack: str
    doubts: tuple[Doubt, ...] = ()

    @classmethod
    def of(
        cls,
        distances: Tensor,
        labels: Tensor,
        correct: Tensor,
        *,
        chance_accuracy: float,
        generator: torch.Generator | None = None,
        **others: Any,
    ) -> AraResult:
        """The result for images' answers: the figures that follow from them are computed, the ``others`` are given.

        Args:
            distances: (N,), float64 on the CPU.
            labels: (N,); -1 for a class that is not known.
            correct: (N,) bool.
            chance_accuracy: a0 of all images together.
            generator: of the bootstrap; ``None`` is a fixed seed.
            others: the attributes that say where the answers come from.

        Returns:
            The result.
        """
        draws = _area.bootstrap_generator(generator)
        return cls(
            area=_area.area(distances, chance_accuracy),
            interval=_area.percentile_interval(_area.bootstrap_areas(distances, chance_accuracy, generator=draws)),
            truncated_area=_area.area(distances, chance_accuracy, truncated=True),
            not_found=int(torch.isinf(distances).sum()),
            clean_accuracy=float(correct.double().mean()),
            chance_accuracy=chance_accuracy,
            distances=distances,
            labels=labels,
            correct=correct,
            **others,
        )

    def __len__(self) -> int:
        return len(self.distances)

    def __str__(self) -> str:
        low, high = self.interval
        missing = f", {self.not_found} not found (truncated {self.truncated_area:.4g})" if self.not_found else ""
        first = (
            f"ARA {self.area:.4g} [{low:.4g}, {high:.4g}] {self.norm}, {self.criterion}, clean accuracy "
            f"{self.clean_accuracy:.3f}, {len(self)} images{missing}"
        )
        return "\n".join([first, *(f"  doubt ({doubt})" for doubt in self.doubts)])

    def per_class(self) -> dict[int, ClassArea]:
        """The area of each class that occurs, with ``class_chance_accuracy`` as a0; from class to ``ClassArea``.

        Raises:
            InvalidInputError: labels that are not one class per image.

        Example:
            >>> from captum_lipschitz import accuracy_robustness_area
            >>> images, labels = torch.rand(9, 4), torch.tensor([0, 0, 0, 0, 0, 0, 0, 1, 1])
            >>> result = accuracy_robustness_area(torch.nn.Linear(4, 3), (images, labels))
            >>> {label: one.count for label, one in result.per_class().items()}
            {0: 7, 1: 2}
        """
        return self._by_class.classes

    @property
    def macro_area(self) -> float:
        """Mean of the areas of the classes that occur: rare classes count as much as common ones.

        With equally many images per class and the same a0 it is at least ``area``: where one class lies below chance
        and the others above, it is cut off at 0 here and weighed against them there.
        """
        return self._by_class.macro_area

    @property
    def macro_interval(self) -> tuple[float, float]:
        """95% interval of ``macro_area``, each class's images resampled among themselves."""
        return self._by_class.macro_interval

    @cached_property
    def _by_class(self) -> ByClass:
        if not self._has_classes():
            raise InvalidInputError(
                f"labels: expected one class per image for figures per class, got {tuple(self.labels.shape)}, "
                f"smallest {int(self.labels.min())}"
            )
        return areas_by_class(self.distances, self.labels, self.correct, self.class_chance_accuracy)

    def _has_classes(self) -> bool:
        return self.labels.dim() == 1 and not bool((self.labels < 0).any())

    def curve(self, rho: Tensor | float) -> Tensor:
        """``acc(rho)``: share of images that no perturbation of at most ``rho`` was found for, shaped as ``rho``."""
        return _area.curve(self.distances, torch.as_tensor(rho))

    def plot(self, ax: Axes | None = None, *, label: str | None = None, color: str | None = None) -> Axes:
        """Draw the accuracy-robustness curve, its area shaded down to chance; returns matplotlib's axes.

        Args:
            ax: matplotlib's axes to draw into; ``None`` for a new figure.
            label: stands before the area in the legend.
            color: matplotlib's; ``None`` for the next of its cycle.

        Returns:
            The axes.
        """
        from matplotlib import pyplot as plt  # takes seconds, so only where a picture is wanted

        ax = ax or plt.subplots(figsize=(5, 3.5), layout="constrained")[1]
        finite = self.distances[torch.isfinite(self.distances)]
        edges = torch.cat([torch.zeros(1, dtype=torch.float64), torch.unique(finite)])
        accuracy = self.curve(edges)
        name = f"{label + ': ' if label else ''}ARA {self.area:.4g}"
        (line,) = ax.step(edges, accuracy, where="post", label=name, color=color)
        above = accuracy.clamp(min=self.chance_accuracy)
        ax.fill_between(
            edges, above, self.chance_accuracy, step="post", alpha=0.15, color=line.get_color(), linewidth=0
        )
        ax.axhline(self.chance_accuracy, color="0.6", linewidth=0.8, linestyle=":")
        ax.set(xlabel=f"perturbation size ({self.norm})", ylabel="accuracy", ylim=(0, 1.02))
        ax.margins(x=0)
        ax.locator_params(axis="x", nbins=6)
        ax.legend(frameon=False)
        return ax

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON's types; an infinite area, bound or distance is ``None``.

        ``by_class`` holds the figures per class and their mean; ``None`` where labels are not classes.
        """
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        fields = {name: value.tolist() if isinstance(value, Tensor) else value for name, value in fields.items()}
        fields["doubts"] = [asdict(doubt) for doubt in self.doubts]
        fields["by_class"] = self._by_class.to_dict() if self._has_classes() else None
        figures: dict[str, Any] = _area.finite_or_none(fields)
        return figures
