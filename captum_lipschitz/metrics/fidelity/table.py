"""Explanation methods side by side, on the same images: intervals, and paired differences from one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnknownNameError
from captum_lipschitz.metrics.estimates import Estimate, estimate, paired_difference, side_of
from captum_lipschitz.metrics.fidelity.evaluation import FidelityValues
from captum_lipschitz.metrics.fidelity.measures import FIDELITY_MEASURES


@dataclass(frozen=True)
class FidelityTable:
    """Fidelity of several methods on the same images in the same order.

    Attributes:
        methods: by name, in the order of the rows.
        compared_with: the method that differences refer to: another's value minus this one's.

    Raises:
        InvalidInputError, InvalidTypeError, UnknownNameError: no methods, other numbers of images, or a
            ``compared_with`` that is none of them.

    Example:
        >>> good, bad = torch.full((16,), 0.75), torch.full((16,), 0.25)
        >>> table = FidelityTable(
        ...     {"good": FidelityValues({"insertion": good}, {}), "bad": FidelityValues({"insertion": bad}, {})},
        ...     compared_with="bad",
        ... )
        >>> table.difference("good", "insertion").mean, table.verdict("good", "insertion")
        (0.5, 'better')
    """

    methods: Mapping[str, FidelityValues]
    compared_with: str

    def __post_init__(self) -> None:
        if not isinstance(self.methods, Mapping) or not self.methods:
            raise InvalidTypeError(f"methods: expected values by name of the method, got {self.methods!r}")
        if self.compared_with not in self.methods:
            raise UnknownNameError(f"compared_with: expected one of {list(self.methods)}, got {self.compared_with!r}")
        sizes = {len(values) for method in self.methods.values() for values in method.values.values()}
        if len(sizes) > 1:
            raise InvalidInputError(f"methods: expected the same images for all, got {sorted(sizes)} of them")

    @property
    def measures(self) -> tuple[str, ...]:
        """Keys of what was measured of any method, in the order of ``FIDELITY_MEASURES``."""
        return tuple(key for key in FIDELITY_MEASURES if any(key in m.values for m in self.methods.values()))

    def values(self, method: str, measure: str) -> Tensor:
        """One value per image, (N,), float64; NaN where there is none.

        Raises:
            UnknownNameError: no such method, or a measure that was not taken of it; the message says why.
        """
        if method not in self.methods:
            raise UnknownNameError(f"method: expected one of {list(self.methods)}, got {method!r}")
        found = self.methods[method]
        if measure not in found.values:
            why = found.left_out.get(measure, f"expected one of {list(found.values)}")
            raise UnknownNameError(f"measure: {measure!r} was not taken of {method}: {why}")
        return found.values[measure]

    def estimate(self, method: str, measure: str) -> Estimate:
        """The mean over images with its 95% interval."""
        return estimate(self.values(method, measure))

    def difference(self, method: str, measure: str) -> Estimate:
        """This method minus ``compared_with``, image by image: the mean with its 95% interval."""
        return paired_difference(self.values(method, measure), self.values(self.compared_with, measure))

    def verdict(self, method: str, measure: str) -> str:
        """Whether this method is ``"better"`` or ``"worse"`` than ``compared_with``, as the measure goes.

        Both only where the whole interval of the difference lies beyond the measure's ``smallest``; ``"same"`` where
        all of it lies within. ``"undecided"`` where it reaches over, ``"too few"`` where fewer than 8 images have a
        value in both: the sample cannot tell.
        """
        about = FIDELITY_MEASURES[measure]
        side = side_of(self.difference(method, measure), about.smallest)
        if side not in ("above", "below"):
            return side
        higher = about.better == "higher"
        return "better" if (side == "above") == higher else "worse"

    def __str__(self) -> str:
        blocks = [self._block(measure) for measure in self.measures]
        left_out = sorted(
            {f"{key} of {name}: {why}" for name, m in self.methods.items() for key, why in m.left_out.items()}
        )
        return "\n\n".join([*blocks, *(["Left out:\n" + "\n".join(left_out)] if left_out else [])])

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON's types, by method and measure; an undefined one is ``None``."""
        return {
            name: {
                measure: {
                    "mean": self.estimate(name, measure).to_dict(),
                    "difference": self.difference(name, measure).to_dict() if self._comparable(name, measure) else None,
                    "verdict": self.verdict(name, measure) if self._comparable(name, measure) else None,
                }
                for measure in method.values
            }
            for name, method in self.methods.items()
        }

    def _comparable(self, method: str, measure: str) -> bool:
        return method != self.compared_with and measure in self.methods[self.compared_with].values

    def _block(self, measure: str) -> str:
        about = FIDELITY_MEASURES[measure]
        width = max(map(len, self.methods))
        lines = [f"{about.title} ({about.better} is better): {about.text}"]
        for name, method in self.methods.items():
            if measure in method.values:
                line = f"  {name:<{width}}  {self.estimate(name, measure)}"
                if self._comparable(name, measure):
                    difference = self.difference(name, measure)
                    line += f"; minus {self.compared_with}: {difference}: {self.verdict(name, measure)}"
                lines.append(line)
        return "\n".join(lines)
