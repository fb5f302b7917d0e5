"""Attacks of torchattacks for captum_lipschitz: ``create_attack("torchattacks:PGDL2")``, one name for each class.

torchattacks itself, and the torchvision it needs, is imported when an attack first runs.
"""

from functools import partial

from captum_lipschitz.plugin import ComponentSpec, hookimpl
from captum_lipschitz_torchattacks.fab import TorchattacksFAB as TorchattacksFAB
from captum_lipschitz_torchattacks.fixed_size import TorchattacksFixedSize as TorchattacksFixedSize
from captum_lipschitz_torchattacks.single_run import TorchattacksSingleRun as TorchattacksSingleRun
from captum_lipschitz_torchattacks.single_table import NOT_APPLICABLE as NOT_APPLICABLE
from captum_lipschitz_torchattacks.single_table import SINGLE
from captum_lipschitz_torchattacks.sized_table import SIZED

__all__ = ["NOT_APPLICABLE", "TorchattacksFAB", "TorchattacksFixedSize", "TorchattacksSingleRun"]


@hookimpl
def captum_lipschitz_attacks() -> list[ComponentSpec]:
    """The wrapped attacks."""
    fab = ComponentSpec(
        "torchattacks:FAB",
        "attack",
        TorchattacksFAB,
        "torchattacks' FAB: boundary projections, without its limit of size",
        "arXiv 1907.02044",
    )
    sized = [
        ComponentSpec(
            f"torchattacks:{entry.name}",
            "attack",
            partial(TorchattacksFixedSize, entry),
            f"torchattacks' {entry.name}: {entry.summary}; at the smallest size that succeeds",
            entry.reference,
        )
        for entry in SIZED
    ]
    single = [
        ComponentSpec(
            f"torchattacks:{entry.name}",
            "attack",
            partial(TorchattacksSingleRun, entry),
            f"torchattacks' {entry.name}: {entry.summary}",
            entry.reference,
        )
        for entry in SINGLE
    ]
    return [*sized, fab, *single]
