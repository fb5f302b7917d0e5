"""A Trainer that stands already, with the penalty in its loss until that is taken out again."""

from __future__ import annotations

from typing import Any

from transformers import Trainer

from captum_lipschitz.errors import InvalidTypeError, UnsupportedTrainingError
from captum_lipschitz.training import LipschitzRegularizer
from captum_lipschitz_transformers.callback import LipschitzTrainerCallback, refuse_second
from captum_lipschitz_transformers.loss import RegularizedLoss
from captum_lipschitz_transformers.refusals import refuse_unsupported
from captum_lipschitz_transformers.trainer import LipschitzTrainerMixin


class RegularizedTrainer:
    """The handle of ``regularize_trainer``.

    Args:
        trainer: which the penalty is in.
        original: the class that it had before.
    """

    def __init__(self, trainer: Trainer, original: type[Trainer]) -> None:
        self._trainer: Trainer | None = trainer
        self._original = original

    def remove(self) -> None:
        """Take the penalty out again. May be called more than once."""
        trainer: Any = self._trainer
        if trainer is not None:
            self._trainer = None
            trainer.remove_callback(trainer.lipschitz_callback)
            del trainer.lipschitz_loss, trainer.lipschitz_callback
            trainer.__class__ = self._original


def regularize_trainer(
    trainer: Trainer,
    regularizer: LipschitzRegularizer,
    *,
    lipschitz_input: str | None = None,
    lipschitz_labels: str | None = None,
    lipschitz_radius_every: int | None = 50,
) -> RegularizedTrainer:
    """Make a trainer that stands already what it would be with ``LipschitzTrainerMixin`` before its class.

    Args:
        trainer: a ``transformers.Trainer``, or one of a class of its own.
        regularizer: the one to add.
        lipschitz_input: as in ``LipschitzTrainerMixin``.
        lipschitz_labels: as there.
        lipschitz_radius_every: as there.

    Returns:
        A handle, whose ``remove()`` takes the penalty out again.

    Raises:
        InvalidInputError, InvalidTypeError: for settings that cannot be used.
        UnsupportedTrainingError: the trainer has a penalty already, or the gradient would not be right.

    Example:
        >>> regularize_trainer(None, LipschitzRegularizer(strength=1.0))
        Traceback (most recent call last):
        captum_lipschitz.errors.InvalidTypeError: trainer: expected a transformers.Trainer, got NoneType
    """
    if not isinstance(trainer, Trainer):
        raise InvalidTypeError(f"trainer: expected a transformers.Trainer, got {type(trainer).__name__}")
    if isinstance(trainer, LipschitzTrainerMixin):
        raise UnsupportedTrainingError("trainer: expected one without a penalty, it has one already")
    loss = RegularizedLoss(regularizer, input_name=lipschitz_input, labels=lipschitz_labels)
    refuse_second(trainer.callback_handler.callbacks)
    refuse_unsupported(trainer, regularizer)
    callback = LipschitzTrainerCallback(loss, radius_every=lipschitz_radius_every)
    original: type[Trainer] = type(trainer)
    regularised = type(original.__name__, (LipschitzTrainerMixin, original), {"__module__": original.__module__})
    trainer.__class__ = regularised
    trainer.begin_lipschitz(loss, callback)  # type: ignore[attr-defined]
    return RegularizedTrainer(trainer, original)
