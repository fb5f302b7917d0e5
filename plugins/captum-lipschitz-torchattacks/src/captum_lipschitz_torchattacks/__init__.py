"""Attacks of torchattacks for captum_lipschitz: ``create_attack("torchattacks:PGDL2")``, ``"torchattacks:FAB"``.

torchattacks itself, and the torchvision it needs, is imported when an attack first runs.
"""

from captum_lipschitz.plugin import ComponentSpec, hookimpl
from captum_lipschitz_torchattacks.fab import TorchattacksFAB as TorchattacksFAB
from captum_lipschitz_torchattacks.pgdl2 import TorchattacksPGDL2 as TorchattacksPGDL2

__all__ = ["TorchattacksFAB", "TorchattacksPGDL2"]


@hookimpl
def captum_lipschitz_attacks() -> list[ComponentSpec]:
    """The wrapped attacks."""
    return [
        ComponentSpec(
            "torchattacks:PGDL2",
            "attack",
            TorchattacksPGDL2,
            "torchattacks' PGDL2, each image at the smallest size that succeeds",
            "arXiv 1706.06083",
        ),
        ComponentSpec(
            "torchattacks:FAB",
            "attack",
            TorchattacksFAB,
            "torchattacks' FAB, without its limit of size",
            "arXiv 1907.02044",
        ),
    ]
