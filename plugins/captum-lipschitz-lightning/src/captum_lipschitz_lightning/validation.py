"""The trainer's validation images, in one process or, the same ones, in each of several."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import CombinedLoader
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset, RandomSampler, SequentialSampler

from captum_lipschitz.errors import InvalidInputError


def first_loader(trainer: pl.Trainer) -> Iterable[Any]:
    """The first of the trainer's validation dataloaders.

    Raises:
        InvalidInputError: there is none.
    """
    loaders = trainer.val_dataloaders
    flat = CombinedLoader(loaders, "sequential").flattened if loaders is not None else []
    if not flat:
        raise InvalidInputError("data: expected a validation dataloader in the trainer, or data=, got neither")
    found: Iterable[Any] = flat[0]
    return found


def same_in_every_process(loader: Iterable[Any]) -> Iterable[Any]:
    """A dataloader over the whole data set, each image once and in order, from one that a process has its share of.

    Samplers for several processes repeat images so that each process has equally many.

    Raises:
        InvalidInputError: the data set cannot be read by index, or a sampler of the user's own says what is read.
    """
    reason = None
    if not isinstance(loader, DataLoader):
        reason = f"a {type(loader).__name__}"
    elif isinstance(loader.dataset, IterableDataset):
        reason = f"an iterable data set, {type(loader.dataset).__name__}"
    elif type(loader.sampler) not in (DistributedSampler, SequentialSampler, RandomSampler):
        reason = f"a sampler of its own, {type(loader.sampler).__name__}"
    elif loader.batch_size is None:
        reason = "no batch size"
    if reason is not None:
        raise InvalidInputError(
            "data: expected a DataLoader with a batch size over a data set that is read by index, so that several "
            f"processes can share out its images, got {reason}; pass the images as AraCallback(data=...)"
        )
    assert isinstance(loader, DataLoader)  # noqa: S101 - said above
    return DataLoader(
        loader.dataset,
        batch_size=loader.batch_size,
        collate_fn=loader.collate_fn,
        num_workers=loader.num_workers,
        worker_init_fn=loader.worker_init_fn,
    )
