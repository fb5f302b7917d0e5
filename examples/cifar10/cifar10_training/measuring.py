"""One instrument for every network: attack ARA first, BTR raw and at a fitted temperature beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_lipschitz import AraResult, BelowChance, MinimumNormAttack, accuracy_robustness_area, fit_temperature
from captum_lipschitz.errors import InvalidInputError
from cifar10_training.images import Part

_CHUNK = 500


@dataclass(frozen=True)
class Instrument:
    """How networks are measured.

    Attributes:
        effort: of ``MinimumNormAttack``.
        images: of the test images, from the first on, that are attacked; the accuracy is that of all.
        below_chance: how many of these the BTR areas are measured on as well, 0 for none.
        batch: images attacked together.
    """

    effort: Literal["fast", "standard", "thorough"] = "thorough"
    images: int = 1000
    below_chance: int = 1000
    batch: int = 250

    def measure(self, network: nn.Module, test: Part, held_out: Part, *, show_progress: bool = False) -> dict[str, Any]:
        """Everything that is said about a network, as JSON's types.

        Args:
            network: in evaluation mode, on the images' device.
            test: measured.
            held_out: what the temperature is fitted on.
            show_progress: a bar over the images.

        Returns:
            ``correct``, of all test images; ``accuracy``; ``attack``, an ``AraResult`` as a dict; where asked for,
            ``below_chance``, ``temperature`` (``None`` where none fits best: an untrained network) and, where there is
            one, ``below_chance_fitted``.
        """
        correct = decided(network, test)
        settings: dict[str, Any] = {"attack": MinimumNormAttack(effort=self.effort), "show_progress": show_progress}
        attack = accuracy_robustness_area(network, self._batches(test[: self.images]), doubts="quick", **settings)
        figures: dict[str, Any] = {
            "instrument": vars(self).copy(),
            "accuracy": float(correct.double().mean()),
            "correct": correct.tolist(),
            "attack": attack.to_dict(),
        }
        if self.below_chance:
            batches = self._batches(test[: self.below_chance])
            raw = accuracy_robustness_area(network, batches, criterion=BelowChance(), doubts="off", **settings)
            figures["below_chance"] = raw.to_dict()
            figures["temperature"] = temperature = _temperature(network, held_out)
            if temperature is not None:
                goal = BelowChance(temperature=temperature)
                fitted = accuracy_robustness_area(network, batches, criterion=goal, doubts="off", **settings)
                figures["below_chance_fitted"] = fitted.to_dict()
        return figures

    def _batches(self, part: Part) -> list[tuple[Tensor, Tensor]]:
        return list(zip(part.inputs().split(self.batch), part.labels.split(self.batch), strict=True))


def _temperature(network: nn.Module, held_out: Part) -> float | None:
    try:
        return fit_temperature(network, (held_out.inputs(), held_out.labels))
    except InvalidInputError:
        return None


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
