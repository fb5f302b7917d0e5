"""What a measurement runs over: a pair of tensors, or batches as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.errors import InvalidTypeError

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
"""``(images, labels)`` or any iterable of such batches, a ``DataLoader`` for one."""

_BATCH = 256


def is_pair(data: Any) -> bool:
    """Whether data are two tensors, images and labels."""
    return isinstance(data, (tuple, list)) and len(data) == 2 and all(isinstance(part, Tensor) for part in data)


def batches(data: Any, check_labels: Callable[[object, int], Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches of a pair, checked as a whole and cut by index, or those that an iterable brings.

    Args:
        data: see ``Data``.
        check_labels: called with a pair's labels and the number of images; raises for labels that cannot be used.
    """
    if is_pair(data):
        images, labels = data
        check_inputs(images, "images")
        check_labels(labels, len(images))
        yield from zip(images.split(_BATCH), labels.split(_BATCH), strict=True)
        return
    if not isinstance(data, Iterable) or isinstance(data, Tensor):
        raise InvalidTypeError(
            f"data: expected (images, labels) or an iterable of such batches, got {type(data).__name__}"
        )
    for batch in data:
        if not is_pair(batch):
            raise InvalidTypeError(f"data: expected batches (images, labels), got {type(batch).__name__}")
        yield batch[0], batch[1]
