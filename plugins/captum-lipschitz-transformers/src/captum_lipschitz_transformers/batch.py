"""Which entries of the Trainer's batch are the inputs that the penalty is about, and which are the labels."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError

_EMBEDDINGS = "inputs_embeds"


def input_name_of(batch: Mapping[str, Any], model: nn.Module, named: str | None, labels: Collection[str]) -> str:
    """The key of the inputs.

    Args:
        batch: as the model is given it.
        model: the one that is trained.
        named: what the user says; ``None`` for the model's ``main_input_name``, or embeddings in its place. A model
            without one: the first floating entry with two dimensions or more that is no label.
        labels: keys of labels.

    Raises:
        InvalidInputError, InvalidTypeError: there is none, or it holds integers, which have no gradient.
    """
    name = named or _guess(batch, model, labels)
    if name not in batch:
        raise InvalidInputError(f"lipschitz_input: expected a key of the batch, one of {sorted(batch)}, got {name!r}")
    value = batch[name]
    if not isinstance(value, Tensor) or not value.is_floating_point():
        kind = value.dtype if isinstance(value, Tensor) else type(value).__name__
        raise InvalidTypeError(
            f"{name}: expected floating point values, with respect to which the logits have a gradient, got {kind}; "
            f"for text give the model {_EMBEDDINGS} in place of input_ids: "
            f"batch['{_EMBEDDINGS}'] = model.get_input_embeddings()(batch.pop('input_ids'))"
        )
    return name


def labels_of(batch: Mapping[str, Any], names: Collection[str], named: str | None) -> Tensor:
    """The labels, as the regularizer takes them.

    Args:
        batch: as the model is given it.
        names: the trainer's ``label_names``.
        named: what the user says; ``None`` for the only one of ``names``.

    Raises:
        InvalidInputError, InvalidTypeError: there are none, or several, or they are no tensor.
    """
    key = named if named is not None else next(iter(names), "labels")
    if named is None and len(names) > 1:
        raise InvalidInputError(f"lipschitz_labels: expected one of label_names, {list(names)}, as there are several")
    if key not in batch:
        raise InvalidInputError(f"lipschitz_labels: expected a key of the batch, one of {sorted(batch)}, got {key!r}")
    labels = batch[key]
    if not isinstance(labels, Tensor):
        raise InvalidTypeError(f"lipschitz_labels: expected a tensor at {key!r}, got {type(labels).__name__}")
    return labels


def _guess(batch: Mapping[str, Any], model: nn.Module, labels: Collection[str]) -> str:
    main = getattr(model, "main_input_name", None)
    if isinstance(main, str):
        return _EMBEDDINGS if _EMBEDDINGS in batch and main not in batch else main
    for name, value in batch.items():
        if isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2 and name not in labels:
            return name
    raise InvalidInputError(
        f"lipschitz_input: expected a floating entry of shape (N, ...) in the batch, got the entries {sorted(batch)}"
    )
