"""Answers for images as a metric gathers them: checked, put in order, and counted once each."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from captum_lipschitz._model import check_labels
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError

UNKNOWN = -1  # a label or an index that was not given
_SAME = 1e-3  # relative difference up to which two answers for one image count as the same


class Samples(NamedTuple):
    """One row per image: distances (N,) floating, correct (N,) bool, labels and indices (N,) int64, -1 if not given."""

    distances: Tensor
    correct: Tensor
    labels: Tensor
    indices: Tensor


def check_samples(
    distances: object, correct: object, labels: object, indices: object, num_classes: int | None
) -> Samples:
    """The rows of one update, or an exception that names the argument."""
    if not isinstance(distances, Tensor):
        raise InvalidTypeError(f"distances: expected a tensor, got {type(distances).__name__}")
    if not distances.is_floating_point():
        raise InvalidTypeError(f"distances: expected floating point values, got {distances.dtype}")
    if distances.dim() != 1 or len(distances) == 0:
        raise InvalidInputError(f"distances: expected one per image, shape (N,), got {tuple(distances.shape)}")
    if not bool((distances >= 0).all()):
        raise InvalidInputError("distances: expected values of at least 0 (inf where none was found), got less or NaN")
    if not isinstance(correct, Tensor) or correct.dtype != torch.bool:
        raise InvalidTypeError(f"correct: expected a tensor of bool, got {getattr(correct, 'dtype', type(correct))}")
    if correct.shape != distances.shape:
        raise InvalidInputError(
            f"correct: expected one per image, shape {tuple(distances.shape)}, got {tuple(correct.shape)}"
        )
    given = {
        "labels": None if labels is None else check_labels(labels, len(distances), num_classes),
        "indices": None if indices is None else _check_indices(indices, len(distances)),
    }
    missing = torch.full(distances.shape, UNKNOWN, dtype=torch.int64, device=distances.device)
    rows = {name: missing if values is None else values.detach() for name, values in given.items()}
    return Samples(distances.detach(), correct.detach(), rows["labels"], rows["indices"])


def once_each(samples: Samples) -> Samples:
    """Every image once, in the order of the indices; as they came where no index is known.

    Of an image that came several times the smallest distance counts, which is what an attack run several times would
    report. So the outcome does not depend on the order in which rows were gathered.

    Raises:
        InvalidInputError: some rows with an index and some without, or two labels for one index.
    """
    known = samples.indices != UNKNOWN
    if not bool(known.any()):
        return samples
    if not bool(known.all()):
        raise InvalidInputError(f"indices: expected with every update or with none, got none for {int((~known).sum())}")
    order = _order(samples)
    rows = Samples(*(values[order] for values in samples))
    first = torch.ones_like(known)
    first[1:] = rows.indices[1:] != rows.indices[:-1]
    group = first.cumsum(0) - 1
    kept = Samples(*(values[first] for values in rows))
    if bool((rows.labels != kept.labels[group]).any()):
        at = int(rows.indices[rows.labels != kept.labels[group]][0])
        raise InvalidInputError(f"indices: expected an image's place in the data set, got {at} with two labels")
    _warn_of_other_answers(rows, kept, group)
    return kept


def _check_indices(indices: object, num_images: int) -> Tensor:
    checked = check_labels(indices, num_images, name="indices", values=False)
    if bool((checked < 0).any()):
        raise InvalidInputError(f"indices: expected places in the data set, from 0, got {int(checked.min())}")
    return checked


def _order(samples: Samples) -> Tensor:
    """By index, then distance, then correct."""
    order = samples.correct.long().sort(stable=True).indices
    for values in (samples.distances, samples.indices):
        order = order[values[order].sort(stable=True).indices]
    return order


def _warn_of_other_answers(rows: Samples, kept: Samples, group: Tensor) -> None:
    expected = kept.distances[group]
    other = (rows.distances > (1 + _SAME) * expected) | (rows.correct != kept.correct[group])
    count = len(group[other].unique())
    if count:
        warnings.warn(
            f"{count} images came more than once with other answers; the smallest distance counts. (Are indices places "
            "in the whole data set, and not in a batch?)",
            CaptumLipschitzWarning,
            stacklevel=2,
        )
