"""What a user names: the network within a module, and the labels within a batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

FromModule: TypeAlias = str | Callable[[Any], nn.Module]
"""A submodule by its dotted name, ``"net"``, or by a function, ``lambda module: module.net``."""

FromBatch: TypeAlias = int | str | Callable[[Any], Tensor]
"""An entry of a batch by its place, ``1``, by its key, ``"label"``, or by a function, ``lambda batch: batch[1]``."""


def network_of(module: nn.Module, how: FromModule) -> nn.Module:
    """The named network.

    Raises:
        InvalidInputError, InvalidTypeError: there is none of that name, or the function returned something else.
    """
    if isinstance(how, str):
        try:
            return module.get_submodule(how)
        except AttributeError as error:
            raise InvalidInputError(
                f"model: expected a submodule of {type(module).__name__}, one of "
                f"{[name for name, _ in module.named_children()]} or of theirs, got {how!r}"
            ) from error
    found = how(module)
    if not isinstance(found, nn.Module):
        raise InvalidTypeError(f"model: expected a function that returns an nn.Module, it returned {type(found)}")
    return found


def entry_of(batch: Any, how: FromBatch, name: str) -> Tensor:
    """The named entry of a batch.

    Args:
        batch: as the dataloader brings it.
        how: see ``FromBatch``.
        name: of the argument, for the message.

    Raises:
        InvalidInputError, InvalidTypeError: there is no such entry, or it is no tensor.
    """
    if callable(how):
        found = how(batch)
    else:
        try:
            found = batch[how]
        except (TypeError, KeyError, IndexError) as error:
            entries = f"keys {list(batch)}" if isinstance(batch, Mapping) else type(batch).__name__
            raise InvalidInputError(f"{name}: expected an entry of the batch ({entries}), got {how!r}") from error
    if not isinstance(found, Tensor):
        raise InvalidTypeError(f"{name}: expected a tensor in the batch at {how!r}, got {type(found).__name__}")
    return found


def check_from_module(how: object) -> None:
    """Raise ``InvalidTypeError`` for what cannot name a network."""
    if how is not None and not isinstance(how, str) and (isinstance(how, nn.Module) or not callable(how)):
        raise InvalidTypeError(f"model: expected a submodule's name or a function of the module, got {how!r}")


def check_from_batch(how: object, name: str) -> None:
    """Raise ``InvalidTypeError`` for what cannot name an entry of a batch."""
    if how is not None and not isinstance(how, (int, str)) and (isinstance(how, Tensor) or not callable(how)):
        raise InvalidTypeError(f"{name}: expected a place, a key or a function of the batch, got {type(how).__name__}")
