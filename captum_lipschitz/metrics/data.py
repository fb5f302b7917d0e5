"""What a measurement runs over: a pair of tensors, or batches as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs
from captum_lipschitz.errors import InvalidTypeError

Data = tuple[Tensor, Tensor] | Iterable[tuple[Tensor, Tensor]]
"""``(images, labels)`` or any iterable of such batches, a ``DataLoader`` for one."""

_BATCH = 256


class Opening:
    """The first images of a stream of batches, and the stream as if nothing had been read of it yet.

    Args:
        stream: batches (images, labels).
        count: how many images to read ahead, in whole batches; fewer where the stream ends or fails before.
    """

    def __init__(self, stream: Iterator[tuple[Tensor, Tensor]], count: int) -> None:
        self._stream = stream
        self._read: list[tuple[Tensor, Tensor]] = []
        self._failure: Exception | None = None
        ahead = 0
        try:
            for batch in stream:
                self._read.append(batch)
                ahead += len(batch[0])
                if ahead >= count:
                    break
        except Exception as error:  # noqa: BLE001  raised again when its turn comes, after what was read
            self._failure = error
        self._count = count

    def images(self) -> Tensor | None:
        """At most ``count`` images, (M, ...); ``None`` where there are none, or of several shapes."""
        tensors = [images for images, _ in self._read if isinstance(images, Tensor)]
        if len({images.shape[1:] for images in tensors}) != 1:
            return None
        return torch.cat(tensors)[: self._count]

    def head(self) -> tuple[Tensor, Tensor]:
        """Images and labels of the batches read ahead, as far as their shapes agree; at least the first batch."""
        shapes = [(images.shape[1:], labels.shape[1:]) for images, labels in self._read]
        alike = [shape == shapes[0] for shape in shapes]
        number = alike.index(False) if False in alike else len(alike)
        images, labels = zip(*self._read[:number], strict=True)
        return torch.cat(images), torch.cat(labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from self._read
        if self._failure is not None:
            raise self._failure
        yield from self._stream


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
    if isinstance(data, (tuple, list)) and len(data) == 2 and any(hasattr(part, "shape") for part in data):
        kinds = ", ".join(type(part).__name__ for part in data)
        raise InvalidTypeError(f"data: expected tensors as (images, labels), got ({kinds}); torch.as_tensor makes them")
    for batch in data:
        if not is_pair(batch):
            raise InvalidTypeError(f"data: expected batches (images, labels), got {type(batch).__name__}")
        yield batch[0], batch[1]
