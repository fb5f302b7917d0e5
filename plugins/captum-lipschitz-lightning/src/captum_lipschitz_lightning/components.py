"""What ``captum_lipschitz`` finds by its own entry point: the regularised training step, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captum_lipschitz.plugin import ComponentSpec, hookimpl, needing

if TYPE_CHECKING:
    from captum_lipschitz.plugin import TrainingHookLike
    from captum_lipschitz.training import StrengthController


@hookimpl
def captum_lipschitz_training_hooks() -> list[ComponentSpec]:
    """The hook that attaches to a LightningModule."""
    summary = "the penalty in a LightningModule's training_step; without LipschitzCallback's logs and checkpoints"
    return [
        ComponentSpec(
            "lightning:lipschitz",
            "training_hook",
            _lipschitz,
            summary,
            "arXiv 1906.02896",
            attaches_to="lightning.pytorch.LightningModule",
        )
    ]


def _lipschitz(
    *, strength: float | StrengthController, model: Any = None, labels: Any = None, **settings: Any
) -> TrainingHookLike:
    """Attaches ``LipschitzRegularizer(strength=..., **settings)`` to a LightningModule, see ``RegularizedStep``."""
    from captum_lipschitz.training import LipschitzRegularizer

    with needing("lightning"):
        from captum_lipschitz_lightning.step import RegularizedStep
    regularizer = LipschitzRegularizer(strength=strength, **settings)

    def attach(module: Any, /) -> Any:
        return RegularizedStep(module, regularizer, model=model, labels=labels)

    return attach
