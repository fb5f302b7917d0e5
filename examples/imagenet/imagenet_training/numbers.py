"""Whole numbers on command lines, for argparse."""

from __future__ import annotations

import argparse


def at_least_one(text: str) -> int:
    """The number, or what is expected instead."""
    return _whole(text, least=1)


def at_least_zero(text: str) -> int:
    """Likewise."""
    return _whole(text, least=0)


def _whole(text: str, *, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least {least}, got {text!r}")
    return value
