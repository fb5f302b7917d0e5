"""Pixels as PNG, small: a palette where few colours are used."""

from __future__ import annotations

import struct
import zlib
from typing import Any

import numpy as np

Pixels = np.ndarray[Any, Any]

_COLOURS = 256  # of a palette with a byte for each pixel
_GREY, _RGB, _PALETTE = 0, 2, 3  # PNG's colour types
_NO_FILTER = 0


def png(pixels: Pixels) -> bytes:
    """A PNG file, as small as its kinds of pixels allow: grey, palette or RGB.

    Args:
        pixels: uint8, (H, W) grey or (H, W, 3) RGB.

    Example:
        >>> png(np.zeros((2, 2), dtype=np.uint8))[1:4]
        b'PNG'
    """
    if pixels.ndim == 2:
        return _file(pixels.shape, _GREY, _filtered(pixels[..., None]))
    colours, index = np.unique(pixels.reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) <= _COLOURS:
        rows = index.reshape(pixels.shape[:2]).astype(np.uint8)
        table = _chunk(b"PLTE", colours.astype(np.uint8).tobytes())
        return _file(pixels.shape, _PALETTE, _marked(rows, np.full(len(rows), _NO_FILTER)), table)
    return _file(pixels.shape, _RGB, _filtered(pixels))


def _file(shape: tuple[int, ...], kind: int, rows: bytes, table: bytes = b"") -> bytes:
    height, width = shape[:2]
    head = _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + table + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def _marked(rows: Pixels, filters: Pixels) -> bytes:
    """Rows of bytes (H, B), each behind the number of its filter."""
    return np.concatenate([filters[:, None].astype(np.uint8), rows], axis=1).tobytes()


def _filtered(pixels: Pixels) -> bytes:
    """Rows behind the filter that leaves the smallest differences, as the PNG specification advises."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels).astype(np.int16)
    left, above, corner = np.zeros_like(rows), np.zeros_like(rows), np.zeros_like(rows)
    left[:, channels:] = rows[:, :-channels]
    above[1:] = rows[:-1]
    corner[1:, channels:] = rows[:-1, :-channels]
    guesses = np.stack([np.zeros_like(rows), left, above, (left + above) // 2, _paeth(left, above, corner)])
    differences = (rows - guesses).astype(np.uint8)
    best = np.abs(differences.astype(np.int8).astype(np.int16)).sum(-1).argmin(0)
    return _marked(differences[best, np.arange(height)], best)


def _paeth(left: Pixels, above: Pixels, corner: Pixels) -> Pixels:
    """The neighbour closest to ``left + above - corner``; of equals the first."""
    near = np.abs(np.stack([above - corner, left - corner, left + above - 2 * corner]))
    best = near.argmin(0)
    return np.where(best == 0, left, np.where(best == 1, above, corner))
