"""One instrument for every network: attack ARA first, BTR raw and at a fitted temperature beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_lipschitz import AraResult, BelowChance, MinimumNormAttack, accuracy_robustness_area, fit_temperature
from captum_lipschitz.errors import InvalidInputError
from cifar10_training.images import Images, Part
from cifar10_training.machine import machine

_CHUNK = 500


@dataclass(frozen=True)
class Instrument:
    """How networks are measured.

    Attributes:
        effort: of ``MinimumNormAttack``.
        images: of the measured ones, from the first on, that are attacked; the accuracy is that of all.
        below_chance: how many of these the BTR areas are measured on as well, 0 for none.
        batch: images attacked together.
        part: what is measured: ``"test"``, or ``"held_out"`` to choose settings.

    Raises:
        InvalidInputError: numbers of images that cannot be.
    """

    effort: Literal["fast", "standard", "thorough"] = "thorough"
    images: int = 1000
    below_chance: int = 1000
    batch: int = 250
    part: Literal["test", "held_out"] = "test"

    def __post_init__(self) -> None:
        for name, least in (("images", 1), ("below_chance", 0), ("batch", 1)):
            if getattr(self, name) < least:
                raise InvalidInputError(f"{name}: expected at least {least}, got {getattr(self, name)}")

    def measure(self, network: nn.Module, images: Images, *, show_progress: bool = False) -> dict[str, Any]:
        """Everything that is said about a network, as JSON's types.

        Args:
            network: in evaluation mode, on the images' device.
            images: of which ``part`` is measured; the temperature is fitted on those held out.
            show_progress: a bar over the images.

        Returns:
            ``instrument`` and ``machine``; ``correct``, of all measured images, and their ``accuracy``; ``attack``, an
            ``AraResult`` as a dict; where asked for, ``below_chance``, ``temperature`` (``None`` where none fits best:
            an untrained network) and, where there is one, ``below_chance_fitted``.
        """
        test: Part = getattr(images, self.part)
        correct = decided(network, test)
        settings: dict[str, Any] = {"attack": MinimumNormAttack(effort=self.effort), "show_progress": show_progress}
        attack = accuracy_robustness_area(network, self._batches(test[: self.images]), doubts="quick", **settings)
        figures: dict[str, Any] = {
            "instrument": vars(self).copy(),
            "machine": machine(test.images.device),
            "accuracy": float(correct.double().mean()),
            "correct": correct.tolist(),
            "attack": attack.to_dict(),
        }
        if self.below_chance:
            batches = self._batches(test[: self.below_chance])
            raw = accuracy_robustness_area(network, batches, criterion=BelowChance(), doubts="off", **settings)
            figures["below_chance"] = raw.to_dict()
            figures["temperature"] = temperature = self._temperature(network, images.held_out)
            if temperature is not None:
                goal = BelowChance(temperature=temperature)
                fitted = accuracy_robustness_area(network, batches, criterion=goal, doubts="off", **settings)
                figures["below_chance_fitted"] = fitted.to_dict()
        return figures

    def _temperature(self, network: nn.Module, held_out: Part) -> float | None:
        """``None`` where none fits best, or no images are held out."""
        if not len(held_out):
            return None
        try:
            return fit_temperature(network, self._batches(held_out))
        except InvalidInputError:
            return None

    def _batches(self, part: Part) -> list[tuple[Tensor, Tensor]]:
        return list(zip(part.inputs().split(self.batch), part.labels.split(self.batch), strict=True))


def decided(network: nn.Module, part: Part) -> Tensor:
    """Which images the network decides rightly, (N,) bool on the CPU."""
    with torch.no_grad():
        answers = [network(inputs).argmax(1) for inputs in part.inputs().split(_CHUNK)]
    return (torch.cat(answers) == part.labels).cpu()


def area_of(figures: dict[str, Any]) -> AraResult:
    """An area as ``Instrument.measure`` wrote it, with its images, to compare it with another one."""
    distances = [float("inf") if one is None else one for one in figures["distances"]]
    kept = ("class_chance_accuracy", "gradient_evaluations", "norm", "criterion", "attack")
    return AraResult.of(
        torch.tensor(distances, dtype=torch.float64),
        torch.tensor(figures["labels"]),
        torch.tensor(figures["correct"]),
        chance_accuracy=figures["chance_accuracy"],
        **{name: figures[name] for name in kept},
    )


def said(figures: dict[str, Any]) -> str:
    """An area as text: with its interval, or where it is infinite how much of it was seen."""
    if figures["area"] is None:
        return f"inf (truncated {figures['truncated_area']:.5f}, {figures['not_found']} not found)"
    low, high = (float("inf") if end is None else end for end in figures["interval"])
    return f"{figures['area']:.5f} [{low:.5f}, {high:.5f}]"
