"""The callback that measures the Accuracy-Robustness Area on the evaluation set."""

from __future__ import annotations

import inspect
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, distributed, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import AraResult, accuracy_robustness_area
from captum_lipschitz.metrics.data import Data, batches, is_pair
from captum_lipschitz.training.processes import number_of_processes
from captum_lipschitz_transformers.logits import LogitsNetwork, without_autocast

_OWN = ("data", "model", "device", "doubts")


class AraCallback(TrainerCallback):
    """Measures the Accuracy-Robustness Area of the model at every n-th evaluation.

    Its figures are put among the evaluation's metrics: ``eval_ara``, its 95% interval ``eval_ara_low`` and
    ``eval_ara_high`` (of the sampling of images), ``eval_ara_not_found`` (number of images without an answer; the area
    is ``inf`` where they are more than a share of chance) and ``eval_ara_clean_accuracy``. So
    ``metric_for_best_model="ara"`` works, with ``greater_is_better=True``; an evaluation that is left out repeats the
    last figures. The model is run in evaluation mode, without autocast, and left as it was, and so are the global
    random states. In several processes each measures all the images, and the first one's figures count.

    The Trainer has logged the evaluation before callbacks see it. So the figures are logged by themselves, through the
    Trainer where it is regularised or ``set_trainer`` told of it, else into ``state.log_history`` alone.

    Args:
        every: evaluations from one measurement to the next, the first included; at least 1.
        max_images: how many, from the first on; at least 1. ``None`` for all.
        data: ``(images, labels)`` or batches, the same in each process; ``None`` for the evaluation's dataset, read in
            its order.
        images: the batch's entry that has them; ``None`` for the model's ``main_input_name``.
        labels: the batch's entry that has the labels.
        model: makes of the trained model the one that is measured, which maps images alone to logits: for models that
            take several inputs, ``model=lambda trained: Wrapper(trained)``. ``None`` for ``LogitsNetwork``.
        name: what the figures are called, after ``eval_``.
        doubts: how closely to look for reasons to doubt the area, see ``accuracy_robustness_area``.
        settings: the others of ``accuracy_robustness_area``: ``attack``, ``criterion``, ``chance``, ``bounds``,
            ``norm``, ``scale``, ``generator``, ``show_progress``.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.

    Attributes:
        result: of the last measurement, or ``None``.

    Example:
        >>> callback = AraCallback(every=5, max_images=128, bounds=(0, 1))

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """

    def __init__(
        self,
        *,
        every: int = 1,
        max_images: int | None = 256,
        data: Data | None = None,
        images: str | None = None,
        labels: str = "labels",
        model: Callable[[Any], nn.Module] | None = None,
        name: str = "ara",
        doubts: Any = "off",
        **settings: Any,
    ) -> None:
        if every < 1:
            raise InvalidInputError(f"every: expected at least 1, got {every}")
        if max_images is not None and max_images < 1:
            raise InvalidInputError(f"max_images: expected at least 1 or None, got {max_images}")
        known = [key for key in inspect.signature(accuracy_robustness_area).parameters if key not in _OWN]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise InvalidTypeError(f"settings: expected any of {known}, got {unknown}")
        self.every = every
        self.max_images = max_images
        self.data = data
        self.images = images
        self.labels = labels
        self.model = model
        self.name = name
        self.settings = {**settings, "doubts": doubts}
        self.result: AraResult | None = None
        self._seen: dict[str, int] = {}
        self._figures: dict[str, dict[str, float]] = {}
        self._trainer: Trainer | None = None

    def set_trainer(self, trainer: Trainer) -> None:
        """Log through this trainer, and so to what it reports to."""
        self._trainer = trainer

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        metrics: dict[str, float] = kwargs["metrics"]
        prefix = _prefix_of(metrics)
        seen = self._seen.get(prefix, 0)
        self._seen[prefix] = seen + 1
        if seen % self.every == 0:
            with _random_states_kept(), torch.enable_grad():
                self.result = self.measure(kwargs["model"], kwargs["eval_dataloader"], args.device)
            self._figures[prefix] = _figures(self.result, f"{prefix}_{self.name}")
            self._log(dict(self._figures[prefix]), state)
        metrics.update(self._figures[prefix])

    def measure(self, model: Any, loader: Any, device: torch.device) -> AraResult:
        """The area of the model as it is, on the data given or those that a dataloader reads.

        Raises:
            As ``accuracy_robustness_area``, InvalidInputError for a dataloader that cannot be read in order, and
            InvalidTypeError for a model that needs other inputs too.
        """
        name = self.images or getattr(model, "main_input_name", None) or "pixel_values"
        stream = self._limited(self._batches(loader, name))
        with without_autocast(model):
            network = self.model(model) if self.model is not None else _alone(model, name)
            return accuracy_robustness_area(network, stream, device=device, **self.settings)

    def _batches(self, loader: Any, name: str) -> Iterator[tuple[Tensor, Tensor]]:
        if self.data is not None and is_pair(self.data):
            yield from batches(self.data, as_criterion(self.settings.get("criterion", "misclassified")).check_labels)
            return
        stream: Any = self.data if self.data is not None else _in_order(loader)
        for batch in stream:
            if isinstance(batch, (tuple, list)):
                yield batch[0], batch[1]
                continue
            for key in (name, self.labels):
                if key not in batch:
                    raise InvalidInputError(
                        f"images, labels: expected keys of the evaluation's batches, {sorted(batch)}, got {key!r}"
                    )
            yield batch[name], batch[self.labels]

    def _limited(self, stream: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        left = self.max_images
        for images, labels in stream:
            yield images[:left], labels[:left]
            if left is not None:
                left -= len(images)
                if left <= 0:
                    return

    def _log(self, figures: dict[str, float], state: TrainerState) -> None:
        if self._trainer is not None:
            self._trainer.log(figures)
        else:
            own = {"epoch": state.epoch} if state.epoch is not None else {}
            state.log_history.append({**figures, **own, "step": state.global_step})


def _figures(result: AraResult, name: str) -> dict[str, float]:
    low, high = result.interval
    figures = {
        name: result.area,
        f"{name}_low": low,
        f"{name}_high": high,
        f"{name}_not_found": float(result.not_found),
        f"{name}_clean_accuracy": result.clean_accuracy,
    }
    if number_of_processes() > 1:  # equal on equal machines; the choice of a best model must not hang on that
        first = [figures]
        distributed.broadcast_object_list(first, src=0)
        figures = first[0]
    return figures


def _alone(model: Any, name: str) -> LogitsNetwork:
    """The model as one of its images alone, if it can be called with them alone."""
    if isinstance(model, nn.Module):
        parameters = inspect.signature(model.forward).parameters.values()
        named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
        needed = [one.name for one in parameters if one.kind in named and one.default is one.empty]
        others = [one for one in needed if one != name]
        if others:
            raise InvalidTypeError(
                f"model: expected one that can be called with {name!r} alone, got {type(model).__name__}, which also "
                f"needs {', '.join(others)}; name its images, AraCallback(images=...), or give "
                "AraCallback(model=lambda trained: Wrapper(trained)), a module that maps images to logits"
            )
    return LogitsNetwork(model, input_name=name)


def _prefix_of(metrics: dict[str, float]) -> str:
    """``"eval"``, or ``"eval_name"`` of one of several evaluation sets, from ``eval_loss`` or ``eval_runtime``."""
    for ending in ("_runtime", "_loss"):
        for key in metrics:
            if key.endswith(ending):
                return key.removesuffix(ending)
    return "eval"


def _in_order(loader: Any) -> Any:
    """A dataloader over the whole data set, each image once and in order, from one that a process has its share of."""
    dataset = getattr(loader, "dataset", None)
    if dataset is None or isinstance(dataset, IterableDataset):
        raise InvalidInputError(
            f"data: expected an evaluation set that is read by index, got {type(dataset).__name__}; pass the images as "
            "AraCallback(data=...)"
        )
    size = getattr(loader, "batch_size", None) or getattr(loader, "total_batch_size", None) or 1
    return DataLoader(
        dataset,
        batch_size=size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
        generator=torch.Generator(),
    )


@contextmanager
def _random_states_kept() -> Iterator[None]:
    """Inside, reading images and attacking them may draw at random; the global states are put back."""
    python, numpy = random.getstate(), np.random.get_state()  # noqa: NPY002 (the state that there is)
    try:
        with torch.random.fork_rng():
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)  # noqa: NPY002
