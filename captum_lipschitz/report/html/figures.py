"""Numbers as they are read: as many digits as the interval justifies, and verdicts in words."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

from captum_lipschitz.metrics.estimates import Estimate, Verdict
from captum_lipschitz.report.html.markup import Html, joined, tag, unseen

NO_VALUE = "—"
RHO = "\u03c1"
_MINUS = "\u2212"
_TIMES = "\u00d7"
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_MOST_DECIMALS = 6


def number(value: float | None, *, decimals: int | None = None, signed: bool = False) -> str:
    """A number in plain typography: three digits that count, or so many ``decimals``.

    Example:
        >>> number(0.01234), number(2.0, decimals=2), number(0.5, signed=True), number(math.inf), number(math.nan)
        ('0.0123', '2.00', '+0.5', '∞', '—')
    """
    if value is None or math.isnan(value):
        return NO_VALUE
    sign = _MINUS if value < 0 else "+" if signed and value > 0 else ""
    if math.isinf(value):
        return f"{sign}∞"
    written = f"{abs(value):.3g}" if decimals is None else f"{abs(value):.{decimals}f}"
    mantissa, _, exponent = written.partition("e")
    if exponent:
        return f"{sign}{mantissa} {_TIMES} 10{str(int(exponent)).translate(_RAISED)}"
    if not float(written):
        return written
    return sign + written


def fraction(value: float) -> str:
    """A share in per cent.

    Example:
        >>> fraction(0.90625)
        '90.6%'
    """
    return NO_VALUE if math.isnan(value) else f"{100 * value:.3g}%"


def interval(low: float | None, high: float | None, *, decimals: int | None = None, signed: bool = False) -> str:
    """Both ends: ``"0.1 to 0.2"``; ``"no interval"`` where there is none."""
    if low is None or math.isnan(low):
        return "no interval"
    top = math.inf if high is None else high
    return f"{number(low, decimals=decimals, signed=signed)} to {number(top, decimals=decimals, signed=signed)}"


def decimals_of(found: Estimate) -> int | None:
    """Decimals that show two digits of the interval's half width; ``None`` where that is no way to write it.

    Example:
        >>> decimals_of(Estimate(0.4123, (0.351, 0.474), 32, 0))
        3
    """
    low, high = found.interval
    half = (high - low) / 2
    if not math.isfinite(half) or not math.isfinite(found.mean) or half <= 0:
        return None
    needed = max(0, 1 - math.floor(math.log10(half)))
    return needed if needed <= _MOST_DECIMALS and abs(found.mean) < 10**6 else None


def shared_decimals(all_found: Iterable[Estimate | None]) -> int | None:
    """Decimals for a column: the fewest that one of its figures needs; ``None`` where none has an interval."""
    needed = [decimals_of(found) for found in all_found if found is not None]
    return min((decimals for decimals in needed if decimals is not None), default=None)


def in_column(found: Estimate, column: int | None) -> int | None:
    """The column's decimals where at most one digit is lost with them, else the figure's own."""
    own = decimals_of(found)
    return own if own is None or column is None or own > column + 1 else column


def written(found: Estimate, *, signed: bool = False, column: int | None = None) -> Html:
    """Mean and interval, with the digits that ``column`` asks for where those suffice.

    Example:
        >>> print(written(Estimate(0.5, (0.4, 0.6), 32, 0)))
        <span class="mean">0.50</span> <span class="interval">0.40 to 0.60</span>
    """
    decimals = in_column(found, column)
    mean = number(found.mean, decimals=decimals, signed=signed)
    if mean == NO_VALUE:
        return missing("no image has a value")
    ends = interval(*found.interval, decimals=decimals, signed=signed)
    return joined([tag("span", mean, class_="mean"), tag("span", ends, class_="interval")], " ")


def missing(why: str) -> Html:
    """A dash to the eye, and the reason to the ear."""
    return joined([tag("span", NO_VALUE, class_="mean", aria_hidden="true"), unseen(why)])


def verdict_in_words(verdict: Verdict, better: Literal["higher", "lower"] | None) -> tuple[str, str]:
    """What a difference says, in words, and the class that colours them.

    Example:
        >>> verdict_in_words("below", "lower"), verdict_in_words("undecided", "higher")
        (('better', 'good'), ('cannot tell', 'open'))
    """
    if verdict == "undecided":
        return "cannot tell", "open"
    if verdict == "too few":
        return "too few images", "open"
    side: Literal["higher", "lower"] = "higher" if verdict == "above" else "lower"
    if better is None:
        return side, "neutral"
    return ("better", "good") if side == better else ("worse", "bad")


def duration(seconds: float) -> str:
    """Seconds as one reads a clock.

    Example:
        >>> duration(492.4), duration(3.25), duration(7260)
        ('8 min 12 s', '3.2 s', '2 h 1 min')
    """
    if not math.isfinite(seconds):
        return NO_VALUE
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"


def how_many(count: int, one: str, several: str | None = None) -> str:
    """``"1 image"``, ``"2 images"``."""
    return f"{count} {one if count == 1 else several or one + 's'}"
