"""What the commands that measure models share: groups of options, and their way into settings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_subject(command: argparse.ArgumentParser, *, limit: int | None = None) -> argparse._ArgumentGroup:
    """The model and the images; ``limit`` is the default number of these. More may be added to the group."""
    what = command.add_argument_group("what is measured")
    what.add_argument(
        "--model", required=True, help="torchvision:NAME, or package.module:callable that makes a module or function"
    )
    what.add_argument(
        "--weights", type=Path, help="safetensors, or a state dict saved by torch; required for torchvision's models"
    )
    what.add_argument(
        "--data",
        type=Path,
        required=True,
        help="folder of class folders of images, or .npz file with arrays images and labels (or test_images and "
        "test_labels, or x and y)",
    )
    what.add_argument(
        "--class-index", type=Path, help="JSON: class folder to class; without it folders are numbered in sorted order"
    )
    what.add_argument(
        "--limit",
        type=int,
        default=limit,
        help="number of images: spread evenly over a folder's classes, the first ones of an array"
        + ("" if limit is None else " (default: %(default)s)"),
    )
    return what


def add_preparation(command: argparse.ArgumentParser) -> None:
    """Resizing, cropping and normalisation."""
    group = command.add_argument_group("how images are prepared")
    group.add_argument("--resize", type=int, metavar="PIXELS", help="bring each image's short side to this length")
    group.add_argument("--crop", type=int, metavar="PIXELS", help="then cut this square from the centre")
    group.add_argument(
        "--mean",
        type=float,
        nargs="+",
        metavar="M",
        help="per channel, subtracted inside the model, in units of [0, 1]",
    )
    group.add_argument("--std", type=float, nargs="+", metavar="S", help="per channel, then divided by")


def add_place(group: argparse._ArgumentGroup) -> None:
    """Where the work is done and kept."""
    group.add_argument("--output", type=Path, required=True, help="folder for finished work and results")
    group.add_argument("--restart", action="store_true", help="throw away what an earlier run left there")
    group.add_argument("--device", default="auto", help="of torch (default: a GPU where there is one)")


def options_of(parsed: argparse.Namespace) -> dict[str, Any]:
    """What was parsed, by name, as settings take it."""
    options = {name: value for name, value in vars(parsed).items() if name not in ("run", "refuse")}
    return {name: tuple(value) if isinstance(value, list) else value for name, value in options.items()}
