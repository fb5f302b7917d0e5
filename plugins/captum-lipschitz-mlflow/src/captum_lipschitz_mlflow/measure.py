"""The measurement: the library's, with the settings as a configuration holds them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from captum_lipschitz import AraResult, accuracy_robustness_area, create_attack
from captum_lipschitz._model import check_inputs
from captum_lipschitz.errors import InvalidTypeError
from captum_lipschitz.geometry import as_norm
from captum_lipschitz.metrics.data import Data
from captum_lipschitz.plugin import get
from captum_lipschitz_mlflow.pictures import explanation_figure, number_shown
from captum_lipschitz_mlflow.record import log_ara
from captum_lipschitz_mlflow.settings import Settings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def measure_ara(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    run_id: str | None = None,
    model_id: str | None = None,
    step: int = 0,
    **settings: Any,
) -> AraResult:
    """Measure a network's Accuracy-Robustness Area and log it, as the evaluator does, to a run.

    Args:
        model: maps inputs (N, ...) to logits (N, C); run in evaluation mode and left as it was.
        images: (N, ...), floating.
        labels: (N,), integer classes.
        run_id: of the run; ``None`` for the active one, or one that is started for it.
        model_id: of the logged model that the metrics are of, which then has them too; ``None`` for none.
        step: of the metrics, an epoch for one. Files are those of the last call.
        settings: those of ``Settings``, which the evaluator's ``evaluator_config`` has too, but ``input_shape``.

    Returns:
        The result, whose figures have been logged.

    Raises:
        InvalidInputError, InvalidTypeError: for data or settings that cannot be used.
        As ``accuracy_robustness_area``.

    Warns:
        CaptumLipschitzWarning: the explanations could not be drawn; everything else has been logged.

    Example:
        >>> import mlflow
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> images, labels = torch.rand(8, 3, 4, 4), torch.arange(8) % 3
        >>> with mlflow.start_run() as run:
        ...     result = measure_ara(model, images, labels, bounds=[0, 1])
        >>> mlflow.get_run(run.info.run_id).data.metrics["ara"] == result.area
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """
    if "input_shape" in settings:
        raise InvalidTypeError("input_shape: expected only by the evaluator, whose data are flat; reshape the images")
    chosen = Settings.of(settings)
    result, draw = measured(model, images, labels, chosen)
    log_ara(
        result,
        name=chosen.name,
        explanations=draw,
        settings=chosen.to_dict(),
        run_id=run_id,
        model_id=model_id,
        step=step,
    )
    return result


def measured(
    model: nn.Module, images: Tensor, labels: Tensor, settings: Settings
) -> tuple[AraResult, Callable[[], Figure] | None]:
    """The result, and what draws the figure of explanations, where there is one; see ``measure_ara``."""
    check_inputs(images, "images")
    if not isinstance(labels, Tensor):
        raise InvalidTypeError(f"labels: expected a tensor of classes, got {type(labels).__name__}")
    images, labels = images[: settings.max_images], labels[: settings.max_images]
    shown = number_shown(images, settings)
    scale = None if settings.scale is None else torch.tensor(settings.scale, dtype=images.dtype)
    result = accuracy_robustness_area(
        model,
        _batched(images, labels, settings.batch_size),
        attack=_attack(settings, scale),
        criterion=settings.criterion,
        chance=settings.chance,
        bounds=_bounds(settings),
        norm=settings.norm,
        scale=scale,
        generator=None if settings.seed is None else torch.Generator().manual_seed(settings.seed),
        doubts=settings.doubts,
        show_progress=settings.show_progress,
    )
    return result, partial(explanation_figure, model, images, labels, settings) if shown else None


def _batched(images: Tensor, labels: Tensor, size: int | None) -> Data:
    if size is None or len(images) != len(labels):  # the library refuses the latter
        return images, labels
    return zip(images.split(size), labels.split(size), strict=True)


def _bounds(settings: Settings) -> tuple[float, float] | None:
    return None if settings.bounds is None else (float(settings.bounds[0]), float(settings.bounds[1]))


def _attack(settings: Settings, scale: Tensor | None) -> Any:
    """The attack by its name, in the measurement's norm and bounds where it takes them."""
    if settings.attack is None:
        return None
    takes = inspect.signature(get("attack", settings.attack).factory).parameters
    anything = any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in takes.values())
    norm = settings.norm if scale is None else as_norm(settings.norm, scale)
    given = {"norm": norm, "bounds": _bounds(settings)}
    shared = {name: value for name, value in given.items() if anything or name in takes}
    return create_attack(settings.attack, **{**shared, **settings.attack_settings})
