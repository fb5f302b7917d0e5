"""The callback that measures the Accuracy-Robustness Area on validation images while a module trains."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn

from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics import AraResult, accuracy_robustness_area
from captum_lipschitz.metrics.data import Data, batches, is_pair
from captum_lipschitz.training.processes import number_of_processes
from captum_lipschitz_lightning.ara_processes import area_in_processes
from captum_lipschitz_lightning.selection import (
    FromBatch,
    FromModule,
    check_from_batch,
    check_from_module,
    entry_of,
    network_of,
)
from captum_lipschitz_lightning.validation import first_loader, same_in_every_process

_OWN = ("data", "model", "device", "doubts")


class AraCallback(pl.Callback):
    """Measures the Accuracy-Robustness Area of the network at the end of every n-th epoch's validation.

    Logged: ``ara``, its 95% interval ``ara_low`` and ``ara_high`` (of the sampling of images), ``ara_not_found``
    (number of images without an answer; ``ara`` is ``inf`` where they are more than a share of chance) and
    ``ara_clean_accuracy``. So ``ModelCheckpoint(monitor="ara", mode="max")`` works, where it looks after each
    validation. The network is run in evaluation mode, without autocast, and left as it was, and so are the global
    random states: training goes on as it would have without.

    In several processes each attacks its share of the batches, each image counts once, and all get the same result, to
    the bit the one of a single process.

    Args:
        every_n_epochs: at least 1. A fit's first validation is measured, each of every n-th epoch, and all of
            ``trainer.validate``; the others log the last figures once more.
        max_images: how many, from the first on; at least 1. ``None`` for all.
        data: ``(images, labels)`` or batches, the same in each process; ``None`` for the trainer's first validation
            dataloader.
        model: the network that returns the logits; ``None`` for the module itself. As in ``LipschitzCallback``.
        images: where in a batch of the dataloader they are: a place, a key or a function.
        labels: where the labels are.
        name: what the figures are logged as.
        doubts: how closely to look for reasons to doubt the area, see ``accuracy_robustness_area``.
        settings: the others of ``accuracy_robustness_area``: ``attack``, ``criterion``, ``chance``, ``bounds``,
            ``norm``, ``scale``, ``generator``, ``show_progress``.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used; in ``fit``, where nothing is validated,
            or another AraCallback has the same name.

    Attributes:
        result: of the last measurement, or ``None``.

    Example:
        >>> callback = AraCallback(every_n_epochs=5, max_images=128, bounds=(0, 1))
        >>> trainer = pl.Trainer(accelerator="cpu", callbacks=[callback], logger=False, enable_checkpointing=False)

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896 ("Accuracy-Robustness Area").
    """

    def __init__(
        self,
        *,
        every_n_epochs: int = 1,
        max_images: int | None = 256,
        data: Data | None = None,
        model: FromModule | None = None,
        images: FromBatch = 0,
        labels: FromBatch = 1,
        name: str = "ara",
        doubts: Any = "off",
        **settings: Any,
    ) -> None:
        super().__init__()
        _check_counts(every_n_epochs, max_images)
        check_from_module(model)
        check_from_batch(images, "images")
        check_from_batch(labels, "labels")
        known = [key for key in inspect.signature(accuracy_robustness_area).parameters if key not in _OWN]
        unknown = sorted(set(settings) - set(known))
        if unknown:
            raise InvalidTypeError(f"settings: expected any of {known}, got {unknown}")
        self.every_n_epochs = every_n_epochs
        self.max_images = max_images
        self.data = data
        self.model = model
        self.images = images
        self.labels = labels
        self.name = name
        self.settings = {**settings, "doubts": doubts}
        self.result: AraResult | None = None

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.result = None
        if not trainer.enable_validation:
            raise InvalidInputError(
                "trainer: expected one that validates, as the area is measured when validation ends, got no "
                "validation_step or no validation dataloader; or call AraCallback.measure where it is wanted"
            )
        others = [one for one in trainer.callbacks if isinstance(one, AraCallback) and one.name == self.name]  # type: ignore[attr-defined]
        if len(others) > 1:
            raise InvalidInputError(
                f"name: expected another one for each AraCallback, got {self.name!r} {len(others)} times"
            )

    def on_validation_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        fitting = trainer.state.fn == "fit"
        if trainer.sanity_checking:
            return
        if fitting and self.result is not None and (trainer.current_epoch + 1) % self.every_n_epochs:
            self._log(pl_module, self.result)  # the last one once more, for whoever monitors it
            return
        # Lightning validates in inference mode, of whose tensors there are no gradients.
        with isolate_rng(), torch.inference_mode(mode=False), torch.enable_grad():
            self.result = self.measure(trainer, pl_module)
        self._log(pl_module, self.result)

    def measure(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> AraResult:
        """The area of the module as it is; in several processes all of them must call.

        Raises:
            As ``accuracy_robustness_area``, and InvalidInputError for a dataloader whose images several processes
            cannot share out.
        """
        network: nn.Module = pl_module if self.model is None else network_of(pl_module, self.model)
        stream = self._limited(self._batches(trainer, pl_module))
        if number_of_processes() == 1:
            return accuracy_robustness_area(network, stream, device=pl_module.device, **self.settings)
        return area_in_processes(network, stream, device=pl_module.device, **self.settings)

    def _batches(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> Iterator[tuple[Tensor, Tensor]]:
        if self.data is not None and is_pair(self.data):
            yield from batches(self.data, as_criterion(self.settings.get("criterion", "misclassified")).check_labels)
            return
        loader = self.data if self.data is not None else first_loader(trainer)
        if self.data is None and number_of_processes() > 1:
            loader = same_in_every_process(loader)
        for given in loader:
            batch = trainer.precision_plugin.convert_input(given)
            batch = trainer.strategy.batch_to_device(batch, pl_module.device, dataloader_idx=0)
            yield entry_of(batch, self.images, "images"), entry_of(batch, self.labels, "labels")

    def _limited(self, stream: Iterator[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        left = self.max_images
        for images, labels in stream:
            yield images[:left], labels[:left]
            if left is not None:
                left -= len(images)
                if left <= 0:
                    return

    def _log(self, pl_module: pl.LightningModule, result: AraResult) -> None:
        low, high = result.interval
        figures = {
            "": result.area,
            "_low": low,
            "_high": high,
            "_not_found": float(result.not_found),
            "_clean_accuracy": result.clean_accuracy,
        }
        # Equal in all processes: the mean over them, which Lightning asks for, is the figure itself.
        pl_module.log_dict(
            {self.name + suffix: value for suffix, value in figures.items()},
            on_step=False,
            on_epoch=True,
            sync_dist=number_of_processes() > 1,
            batch_size=1,
        )


def _check_counts(every_n_epochs: int, max_images: int | None) -> None:
    if every_n_epochs < 1:
        raise InvalidInputError(f"every_n_epochs: expected at least 1, got {every_n_epochs}")
    if max_images is not None and max_images < 1:
        raise InvalidInputError(f"max_images: expected at least 1 or None, got {max_images}")
