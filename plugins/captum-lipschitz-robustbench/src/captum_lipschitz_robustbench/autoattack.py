"""RobustBench imports a package that PyPI does not have; its renamed form stands in for it."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, MissingDependencyError


def provide_autoattack() -> bool:
    """Let RobustBench find AutoAttack: call it before ``import robustbench``, where that fails.

    RobustBench 1.1 and 1.1.1 require ``pyautoattack`` from PyPI and import ``autoattack``, which is the package's name
    in its authors' repository only; its arguments are named otherwise there. This puts a module ``autoattack`` into
    ``sys.modules`` that runs the installed ``pyautoattack`` by the names that RobustBench uses. It is for this process,
    and does nothing where ``autoattack`` is installed or provided already.

    Returns:
        Whether it was needed.

    Raises:
        MissingDependencyError: ``pyautoattack`` is not installed either.

    Example:
        >>> needed = provide_autoattack()
        >>> from robustbench.eval import benchmark
        >>> provide_autoattack()
        False

    References:
        Croce and Hein 2020, arXiv 2003.01690 (AutoAttack).
    """
    if "autoattack" in sys.modules or importlib.util.find_spec("autoattack") is not None:
        return False
    try:
        import pyautoattack.state
    except ImportError as error:
        raise MissingDependencyError(
            "pyautoattack: not installed, and neither is autoattack; pip install pyautoattack"
        ) from error
    module = ModuleType("autoattack", "pyautoattack, by the names that RobustBench uses.")
    module.__spec__ = ModuleSpec("autoattack", None)  # whoever looks for it with find_spec finds it
    module.AutoAttack = AutoAttack  # type: ignore[attr-defined]
    module.state = pyautoattack.state  # type: ignore[attr-defined]
    sys.modules["autoattack"] = module
    sys.modules["autoattack.state"] = pyautoattack.state
    return True


class AutoAttack:
    """``pyautoattack.AutoAttack`` with the arguments and the answer of the original, as far as RobustBench uses them.

    Args:
        model: maps images (N, 3, H, W) in [0, 1] to logits.
        norm: ``"Linf"``, ``"L2"`` or ``"L1"``.
        eps: size, in the norm.
        seed: of the attacks; ``None`` is the clock's.
        attacks_to_run: names of attacks, for ``version="custom"``.
        version: ``"standard"``, ``"plus"``, ``"rand"`` or ``"custom"``.
        device: of the model.
        log_path: must be ``None``: pyautoattack reports to the logger ``"auto-attack"``.

    Attributes:
        attack: the ``pyautoattack.AutoAttack``.
    """

    def __init__(
        self,
        model: nn.Module,
        norm: str = "Linf",
        eps: float = 0.3,
        *,
        seed: int | None = None,
        attacks_to_run: list[str] | None = None,
        version: str = "standard",
        device: torch.device | str = "cpu",
        log_path: str | None = None,
    ) -> None:
        import pyautoattack

        if log_path is not None:
            raise InvalidInputError(
                f"log_path: expected None, got {log_path!r}; pyautoattack reports to logging.getLogger('auto-attack')"
            )
        self.attack: Any = pyautoattack.AutoAttack(
            model, norm=norm, eps=eps, seed=seed, attacks=attacks_to_run, version=version, device=device
        )

    def run_standard_evaluation(
        self, images: Tensor, labels: Tensor, bs: int = 250, *, state_path: Path | None = None
    ) -> Tensor:
        """Adversarial images (N, 3, H, W), those that were not broken as they came; ``bs`` at once."""
        adversarial, _ = self.attack.run_standard_evaluation(images, labels, batch_size=bs, state_path=state_path)
        found: Tensor = adversarial
        return found
