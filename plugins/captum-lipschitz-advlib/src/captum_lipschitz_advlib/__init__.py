"""Attacks of adv-lib for captum_lipschitz: ``create_attack("advlib:DDN")``, and FMN, PDGD and PDPGD likewise.

adv-lib itself, and the torchvision it needs, is imported when an attack first runs.
"""

from captum_lipschitz.plugin import ComponentSpec, hookimpl
from captum_lipschitz_advlib.ddn import AdvLibDDN as AdvLibDDN
from captum_lipschitz_advlib.fmn import AdvLibFMN as AdvLibFMN
from captum_lipschitz_advlib.primal_dual import AdvLibPDGD as AdvLibPDGD
from captum_lipschitz_advlib.primal_dual import AdvLibPDPGD as AdvLibPDPGD

__all__ = ["AdvLibDDN", "AdvLibFMN", "AdvLibPDGD", "AdvLibPDPGD"]


@hookimpl
def captum_lipschitz_attacks() -> list[ComponentSpec]:
    """The wrapped attacks."""
    return [
        ComponentSpec(
            "advlib:DDN", "attack", AdvLibDDN, "adv-lib's Decoupled Direction and Norm, L2", "arXiv 1811.09600"
        ),
        ComponentSpec("advlib:FMN", "attack", AdvLibFMN, "adv-lib's Fast Minimum-Norm, L2 or Linf", "arXiv 2102.12827"),
        ComponentSpec(
            "advlib:PDGD", "attack", AdvLibPDGD, "adv-lib's Primal-Dual Gradient Descent, L2", "arXiv 2106.01538"
        ),
        ComponentSpec(
            "advlib:PDPGD",
            "attack",
            AdvLibPDPGD,
            "adv-lib's Primal-Dual Proximal Gradient Descent, L2 or Linf",
            "arXiv 2106.01538",
        ),
    ]
