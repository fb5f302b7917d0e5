"""The attacks that are compared: ours, the paper's, and others' by the names that their plugins give them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from captum_lipschitz import MinimumNormAttack, PaperAttack, create_attack
from captum_lipschitz.plugin import AttackLike

Box = tuple[float, float] | None
Settings = Callable[[int, int], dict[str, Any] | None]
"""``(gradients, classes) -> settings`` of a peer that may spend so much on an image; ``None``: a step costs more."""

_FEW_CLASSES = 20  # up to so many, attacks that look at every class at each step may do so
_TARGETS = 9


@dataclass(frozen=True)
class Contender:
    """One attack, ready to run.

    Attributes:
        label: what tables call it, with its settings.
        attack: made for one box, or none.
    """

    label: str
    attack: AttackLike


def contender(name: str, bounds: Box, *, gradients: int, classes: int) -> Contender | None:
    """Make the attack of that name, a key of ``CONTENDERS``.

    Args:
        name: a key of ``CONTENDERS``.
        bounds: the box, or ``None``.
        gradients: what a peer may spend on an image, at most; ours and the paper's have budgets of their own.
        classes: C, of the network.

    Returns:
        The attack, or ``None`` where a single step of it costs more than that.

    Raises:
        UnknownNameError: no installed plugin brings it.
        InvalidInputError: it has no search in this box.
    """
    if name == "paper":
        attack = PaperAttack(steps=450, objective="cross_entropy", bounds=bounds)
        return Contender('PaperAttack(steps=450, objective="cross_entropy")', attack)
    if name in _EFFORTS:
        effort = _EFFORTS[name]
        return Contender(f'MinimumNormAttack(effort="{effort}")', MinimumNormAttack(effort=effort, bounds=bounds))
    component, settings = _PEERS[name]
    chosen = settings(gradients, classes)
    if chosen is None:
        return None
    told = ", ".join(f"{key}={value}" for key, value in chosen.items())
    return Contender(f"{component}({told})", create_attack(component, bounds=bounds, **chosen))


def _one_a_step(gradients: int, classes: int) -> dict[str, Any]:
    del classes
    return {"steps": gradients}


def _one_a_class(gradients: int, classes: int) -> dict[str, Any] | None:
    return {"steps": gradients // classes} if gradients >= classes else None


def _fab(gradients: int, classes: int) -> dict[str, Any] | None:
    """All classes at once; where there are many, one run toward each of the nine likeliest."""
    if classes <= _FEW_CLASSES:
        return _one_a_class(gradients, classes)
    return {"steps": gradients // _TARGETS, "targets": _TARGETS} if gradients >= _TARGETS else None


_EFFORTS: dict[str, Literal["fast", "standard", "thorough"]] = {
    "fast": "fast",
    "standard": "standard",
    "thorough": "thorough",
}
_PEERS: dict[str, tuple[str, Settings]] = {
    "ddn": ("advlib:DDN", _one_a_step),
    "fmn": ("advlib:FMN", _one_a_step),
    "pdgd": ("advlib:PDGD", _one_a_step),
    "fab": ("torchattacks:FAB", _fab),
    "deepfool": ("torchattacks:DeepFool", _one_a_class),
    "cw": ("torchattacks:CW", _one_a_step),
}
CONTENDERS = (*_EFFORTS, "paper", *_PEERS)
"""In the order in which they are run and stand in tables."""
