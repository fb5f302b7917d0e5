"""What a benchmark found, beside the figures that RobustBench reports."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from captum_lipschitz.metrics import AraResult


@dataclass(frozen=True)
class BenchmarkAra:
    """An Accuracy-Robustness Area, and the robust accuracy that the same distances give at RobustBench's size.

    Attributes:
        ara: area, interval, curve, distances and the rest; in the threat model's norm.
        robust_accuracy: share of images that are right and for which nothing within ``eps`` was found, a fraction. An
            upper bound, as AutoAttack's is: neither attack proves that there is nothing. Put the smaller one down.
        eps: the threat model's size, in its norm.
        threat_model: ``"Linf"`` or ``"L2"``.
        dataset: RobustBench's name of it; ``None`` for images of one's own.
    """

    ara: AraResult
    robust_accuracy: float
    eps: float
    threat_model: str
    dataset: str | None

    @property
    def clean_accuracy(self) -> float:
        """Share of images that the model decides rightly, a fraction: RobustBench's clean accuracy."""
        return self.ara.clean_accuracy

    def __str__(self) -> str:
        first, *doubts = str(self.ara).split("\n")
        bound = f"robust accuracy at most {self.robust_accuracy:.3f} at {self.threat_model} {self.eps:.4g}"
        return "\n".join([f"{first}; {bound}", *doubts])

    def to_dict(self) -> dict[str, Any]:
        """Everything as JSON's types; see ``AraResult.to_dict``."""
        return {
            "ara": self.ara.to_dict(),
            "robust_accuracy": self.robust_accuracy,
            "clean_accuracy": self.clean_accuracy,
            "eps": self.eps,
            "threat_model": self.threat_model,
            "dataset": self.dataset,
        }
