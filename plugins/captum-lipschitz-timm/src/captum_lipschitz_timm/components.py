"""What ``captum_lipschitz`` finds by its own entry point: the penalty in a timm task, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captum_lipschitz.plugin import ComponentSpec, hookimpl, needing

if TYPE_CHECKING:
    from captum_lipschitz.plugin import TrainingHookLike
    from captum_lipschitz.training import StrengthController


@hookimpl
def captum_lipschitz_training_hooks() -> list[ComponentSpec]:
    """The hook that attaches to a ``timm.task.TrainingTask``."""
    summary = "the penalty in the loss of a timm training task"
    return [
        ComponentSpec(
            "timm:lipschitz",
            "training_hook",
            _lipschitz,
            summary,
            "arXiv 1906.02896",
            attaches_to="timm.task.TrainingTask",
        )
    ]


def _lipschitz(*, strength: float | StrengthController, **settings: Any) -> TrainingHookLike:
    """Attaches ``LipschitzRegularizer(strength=..., **settings)`` to a task, see ``regularize_task``."""
    from captum_lipschitz.training import LipschitzRegularizer

    with needing("timm"):
        from captum_lipschitz_timm.task import regularize_task
    regularizer = LipschitzRegularizer(strength=strength, **settings)

    def attach(task: Any, /) -> Any:
        return regularize_task(task, regularizer)

    return attach
