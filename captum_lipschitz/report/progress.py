"""How far an audit is, and how long it will still take: steps of one kind take about as long as one another."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from tqdm.auto import tqdm

_FORMAT = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} steps, {elapsed}{postfix}"


class Kind(NamedTuple):
    """What a step is one of: of a model, a part of the audit, and a method or ``""``."""

    model: int
    part: str
    method: str


class Forecast:
    """The time that remains, from what finished steps took: of the same kind, else of the same part, else of any.

    Args:
        kinds: of all steps, with repetitions.

    Example:
        >>> forecast = Forecast([Kind(0, "fidelity", "lime")] * 3 + [Kind(0, "fidelity", "saliency")])
        >>> forecast.finished(Kind(0, "fidelity", "lime"), 10.0)
        >>> forecast.seconds()
        30.0
    """

    def __init__(self, kinds: Iterable[Kind]) -> None:
        self._open: dict[Kind, int] = defaultdict(int)
        self._took: dict[Kind, list[float]] = defaultdict(list)
        for kind in kinds:
            self._open[kind] += 1

    def finished(self, kind: Kind, seconds: float | None) -> None:
        """One step of a kind is done, in so many seconds of work; ``None`` for one that is left out."""
        self._open[kind] -= 1
        if seconds is not None:
            self._took[kind].append(seconds)

    def seconds(self) -> float | None:
        """Seconds of work that remain; ``None`` while nothing is known."""
        everything = [s for took in self._took.values() for s in took]
        if not everything:
            return None
        return sum(count * self._expected(kind, everything) for kind, count in self._open.items() if count)

    def _expected(self, kind: Kind, everything: list[float]) -> float:
        alike = (
            [other for other in self._took if other == kind],
            [other for other in self._took if other[1:] == kind[1:]],
            [other for other in self._took if other.part == kind.part],
        )
        for kinds in alike:
            known = [s for other in kinds for s in self._took[other]]
            if known:
                return sum(known) / len(known)
        return sum(everything) / len(everything)


class Progress:
    """A bar on the error stream over all steps, with the time left.

    Args:
        kinds: of all steps.
        shown: or it is silent.
    """

    def __init__(self, kinds: list[Kind], *, shown: bool) -> None:
        self._forecast = Forecast(kinds)
        self._bar = tqdm(total=len(kinds), desc="Audit", bar_format=_FORMAT, disable=not shown, dynamic_ncols=True)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.close()

    def begins(self, told: str) -> None:
        """Say what is being done."""
        left = self._forecast.seconds()
        remaining = "" if left is None else f"{duration(left)} left, "
        self._bar.set_postfix_str(f"{remaining}{told}")

    def finished(self, kind: Kind, seconds: float | None) -> None:
        """One step is done."""
        self._forecast.finished(kind, seconds)
        self._bar.update()


def duration(seconds: float) -> str:
    """A time for people.

    Example:
        >>> duration(42.3), duration(200), duration(7300)
        ('about 42 s', 'about 3 min', 'about 2 h 2 min')
    """
    if seconds < 90:
        return f"about {seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"about {minutes} min" if minutes < 120 else f"about {minutes // 60} h {minutes % 60} min"
