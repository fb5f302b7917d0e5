"""What Lightning calls for every ``Trainer`` and every ``Fabric``: nothing is attached unless the user asked for it.

Lightning has no way to leave a factory out, so everything is imported only where it was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from captum_lipschitz_lightning.configuration import requested

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from captum_lipschitz_lightning.fabric import FabricLipschitz


def trainer_callbacks() -> list[pl.Callback]:
    """A ``LipschitzCallback`` for the section ``lipschitz``, an ``AraCallback`` for ``ara``; else nothing.

    Raises:
        InvalidInputError, InvalidTypeError: what was asked for cannot be made.
    """
    sections = requested()
    callbacks: list[pl.Callback] = []
    if "lipschitz" in sections:
        from captum_lipschitz_lightning.lipschitz import LipschitzCallback

        callbacks.append(LipschitzCallback(**_training(sections["lipschitz"], "lipschitz")))
    if "ara" in sections:
        from captum_lipschitz_lightning.ara import AraCallback

        callbacks.append(AraCallback(**_measuring(sections["ara"])))
    return callbacks


def fabric_callbacks() -> list[FabricLipschitz]:
    """A ``FabricLipschitz`` for the section ``fabric``; else nothing.

    Raises:
        InvalidInputError, InvalidTypeError: what was asked for cannot be made.
    """
    sections = requested()
    if "fabric" not in sections:
        return []
    from captum_lipschitz_lightning.fabric import FabricLipschitz

    return [FabricLipschitz(**_training(sections["fabric"], "fabric"))]


def _training(section: dict[str, Any], name: str) -> dict[str, Any]:
    """Settings as the callbacks take them; a strength that is an object becomes an ``AdaptiveStrength``."""
    from captum_lipschitz.errors import InvalidInputError
    from captum_lipschitz.training import AdaptiveStrength

    strength = section.get("strength")
    if strength is None:
        raise InvalidInputError(
            f'{name}.strength: expected a number, or AdaptiveStrength\'s settings such as {{"target_loss": 1.5}}, '
            "got none"
        )
    return {**section, "strength": AdaptiveStrength(**strength) if isinstance(strength, dict) else strength}


def _measuring(section: dict[str, Any]) -> dict[str, Any]:
    """Settings as the callback takes them: bounds as a tuple, an attack by its name."""
    settings = dict(section)
    if settings.get("bounds") is not None:
        settings["bounds"] = tuple(settings["bounds"])
    if isinstance(settings.get("attack"), str):
        from captum_lipschitz import create_attack

        own = {"bounds": settings["bounds"]} if settings.get("bounds") is not None else {}
        settings["attack"] = create_attack(settings["attack"], **own)
    return settings
