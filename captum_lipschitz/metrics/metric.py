"""The Accuracy-Robustness Area as a torchmetrics metric: gathered batch by batch and across processes.

Importing this module imports torchmetrics.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError
from captum_lipschitz.geometry import Norm, as_norm
from captum_lipschitz.metrics import area as _area
from captum_lipschitz.metrics.ara import chance_accuracy, check_chance
from captum_lipschitz.metrics.result import AraResult
from captum_lipschitz.metrics.samples import Samples, check_samples, once_each

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class AccuracyRobustnessArea(Metric):
    """The ARA of distances that an attack found, gathered over batches and processes.

    ``compute`` gives the area, a scalar tensor in the distances' units: the integral over rho of
    ``max(0, acc(rho) - a0)``, with ``acc(rho)`` the share of images whose distance is above rho; ``inf`` where more
    than a share a0 of the images has no finite distance. ``result`` gives all the other figures, per class too.

    Samplers for several processes repeat images to give each process equally many. With ``indices``, the images'
    places in the data set, each image counts once, and any number of processes gives the same bits. Without them
    repeats cannot be known and count twice: a warning says so where several processes took part.

    Args:
        num_classes: C, at least 2; needed for ``chance="uniform"``. Where it is not given, those that occur are counted
            for ``AraResult.class_chance_accuracy``.
        chance: a0, accuracy of guessing: ``"uniform"`` for 1 / C, ``"majority"`` for the commonest label's share (needs
            ``labels``), or a fraction in [0, 1).
        norm: what distances were measured in, for ``result``.
        criterion: what they are distances to, for ``result``.
        settings: torchmetrics' own (``sync_on_compute``, ``process_group``, ...).

    Raises:
        InvalidInputError: settings that cannot be used.

    Example:
        >>> from captum_lipschitz import AccuracyRobustnessArea, MinimumNormAttack
        >>> metric = AccuracyRobustnessArea(num_classes=3)
        >>> model, attack = torch.nn.Linear(4, 3), MinimumNormAttack()
        >>> for start in (0, 8):
        ...     images, labels = torch.rand(8, 4), torch.arange(8) % 3
        ...     correct = model(images).argmax(1) == labels
        ...     distances = attack(model, images, labels).distances
        ...     metric.update(distances, correct, labels, indices=torch.arange(start, start + 8))
        >>> bool(metric.compute() >= 0), len(metric.result())
        (True, 16)

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """

    higher_is_better: bool | None = True
    is_differentiable: bool | None = False
    full_state_update: bool | None = False
    plot_lower_bound: float | None = 0.0

    distances: list[Tensor]
    correct: list[Tensor]
    labels: list[Tensor]
    indices: list[Tensor]

    def __init__(
        self,
        *,
        num_classes: int | None = None,
        chance: str | float = "uniform",
        norm: Norm | str = "rmse",
        criterion: Criterion | str = "misclassified",
        **settings: Any,
    ) -> None:
        super().__init__(**settings)
        if num_classes is not None and (not isinstance(num_classes, int) or num_classes < 2):
            raise InvalidInputError(f"num_classes: expected at least 2 or None, got {num_classes!r}")
        check_chance(chance, as_criterion(criterion))
        if chance == "uniform" and num_classes is None:
            raise InvalidInputError("num_classes: expected the number of classes for chance='uniform', got None")
        self.num_classes = num_classes
        self.chance = chance
        self.norm = as_norm(norm).unit
        self.criterion = repr(as_criterion(criterion))
        for name in Samples._fields:
            self.add_state(name, default=[], dist_reduce_fx="cat")

    def update(
        self, distances: Tensor, correct: Tensor, labels: Tensor | None = None, indices: Tensor | None = None
    ) -> None:
        """Add a batch.

        Args:
            distances: (N,), floating, at least 0, ``inf`` where none was found (``AttackResult.distances``).
            correct: (N,) bool: the model decides the clean image rightly.
            labels: classes, (N,); needed for ``chance="majority"`` and figures per class.
            indices: the images' places in the data set, (N,) integers from 0; with every update or with none.

        Raises:
            InvalidInputError, InvalidTypeError: for rows that cannot be used; nothing is added then.
        """
        rows = check_samples(distances, correct, labels, indices, self.num_classes)
        if self.chance == "majority" and labels is None:
            raise InvalidInputError("labels: expected classes for chance='majority', got None")
        for name, values in zip(Samples._fields, rows, strict=True):
            getattr(self, name).append(values.to(self.device, _dtype(name, self.device)))

    def compute(self) -> Tensor:
        """The area, a scalar tensor on the metric's device.

        Raises:
            InvalidInputError: before any update; indices given with some updates only, or two labels for one index.
        """
        rows = self._gathered()
        area = _area.area(rows.distances, self._chance_accuracy(rows))
        return torch.tensor(area, dtype=_dtype("distances", self.device), device=self.device)

    def result(self, *, generator: torch.Generator | None = None) -> AraResult:
        """All figures of the images gathered so far, images in the order of their indices.

        Every process has to call it, as for ``compute``. ``gradient_evaluations`` is 0 and ``attack`` is empty: a
        metric does not see them.

        Args:
            generator: source of the bootstrap's draws; ``None`` is a fixed seed, so that results repeat.

        Returns:
            An ``AraResult`` of all processes' images.

        Raises:
            InvalidInputError: see ``compute``.
        """
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn, should_sync=self._to_sync, should_unsync=self._should_unsync
        ):
            rows = self._gathered()
        guessing = self._chance_accuracy(rows)
        num_classes = self.num_classes or max(2, len(rows.labels.unique()))
        return AraResult.of(
            rows.distances.double(),
            rows.labels,
            rows.correct,
            chance_accuracy=guessing,
            class_chance_accuracy=1 / num_classes if isinstance(self.chance, str) else guessing,
            gradient_evaluations=0,
            norm=self.norm,
            criterion=self.criterion,
            attack="",
            generator=generator,
        )

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Axes | None = None) -> tuple[Figure | None, Axes]:
        """Draw the accuracy-robustness curve; or given areas, one or several in a row, draw those.

        Args:
            val: ``None`` for the curve of what was gathered; else what ``compute`` or ``forward`` returned.
            ax: matplotlib's axes to draw in; ``None`` for new ones.

        Returns:
            The figure and its axes.
        """
        if val is not None:
            figure, drawn = self._plot(val, ax)
            return figure, cast("Axes", drawn)
        axes = self.result().plot(ax)
        return axes.figure.figure, axes  # a subfigure's is the whole one; get_figure(root=True) came with 3.10

    def _gathered(self) -> Samples:
        """Every image once, on the CPU; inside a synchronisation those of all processes."""
        if not len(self.distances):
            raise InvalidInputError("distances: expected at least one update before the area is computed, got none")
        distances, correct, labels, indices = (dim_zero_cat(getattr(self, name)).cpu() for name in Samples._fields)
        rows = Samples(distances, correct.bool(), labels, indices)
        if self._several_processes() and bool((indices < 0).all()):
            warnings.warn(
                "AccuracyRobustnessArea: images that a sampler gave to two processes count twice, as update got no "
                "indices to know them by",
                CaptumLipschitzWarning,
                stacklevel=3,
            )
        return once_each(rows)

    def _chance_accuracy(self, rows: Samples) -> float:
        return chance_accuracy(self.chance, rows.labels, self.num_classes or 1)

    def _several_processes(self) -> bool:
        if not self._is_synced:
            return False
        here = torch.distributed.is_available() and torch.distributed.is_initialized()
        return not here or torch.distributed.get_world_size(self.process_group) > 1

    def _sync_dist(self, *arguments: Any, **settings: Any) -> None:
        """Give each state of a process without images its own dtype, which torchmetrics does not know, and gather."""
        for name in Samples._fields:
            if not len(getattr(self, name)):
                setattr(self, name, [torch.empty(0, dtype=_dtype(name, self.device), device=self.device)])
        super()._sync_dist(*arguments, **settings)


def _dtype(name: str, device: torch.device) -> torch.dtype:
    """What a state is kept as, the same on every process. Gloo gathers no bool, Apple's devices have no float64."""
    if name == "distances":
        return torch.float32 if device.type == "mps" else torch.float64
    return torch.uint8 if name == "correct" else torch.int64
