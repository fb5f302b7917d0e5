"""What ``captum_lipschitz`` finds by its own entry point: the regularised Trainer, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captum_lipschitz.plugin import ComponentSpec, hookimpl, needing

if TYPE_CHECKING:
    from captum_lipschitz.plugin import TrainingHookLike
    from captum_lipschitz.training import StrengthController


@hookimpl
def captum_lipschitz_training_hooks() -> list[ComponentSpec]:
    """The hook that attaches to a Trainer."""
    summary = "the penalty in the loss of a transformers.Trainer; see regularize_trainer"
    return [
        ComponentSpec(
            "transformers:lipschitz",
            "training_hook",
            _lipschitz,
            summary,
            "arXiv 1906.02896",
            attaches_to="transformers.Trainer",
        )
    ]


def _lipschitz(
    *,
    strength: float | StrengthController,
    lipschitz_input: str | None = None,
    lipschitz_labels: str | None = None,
    lipschitz_radius_every: int | None = 50,
    **settings: Any,
) -> TrainingHookLike:
    """Attaches ``LipschitzRegularizer(strength=..., **settings)`` to a Trainer, see ``regularize_trainer``."""
    from captum_lipschitz.training import LipschitzRegularizer

    with needing("transformers"):
        from captum_lipschitz_transformers.attach import regularize_trainer
    regularizer = LipschitzRegularizer(strength=strength, **settings)

    def attach(trainer: Any, /) -> Any:
        return regularize_trainer(
            trainer,
            regularizer,
            lipschitz_input=lipschitz_input,
            lipschitz_labels=lipschitz_labels,
            lipschitz_radius_every=lipschitz_radius_every,
        )

    return attach
