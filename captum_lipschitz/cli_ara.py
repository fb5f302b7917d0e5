"""The command ``captum-lipschitz ara``: its options, and their way into ``AraSettings``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from captum_lipschitz.errors import CaptumLipschitzError

_DESCRIPTION = """\
Measure how far a classifier's accuracy holds as its images are perturbed. Finished chunks of images are kept under
OUTPUT/chunks: the same command again goes on from there, and ends with the same figures. Under torchrun (torchrun
--nproc-per-node 4 -m captum_lipschitz ara ...) the processes, on one machine or several, share the chunks.
"""


def add_ara(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's."""
    ara = commands.add_parser("ara", help="measure a model's Accuracy-Robustness Area", description=_DESCRIPTION)
    what = ara.add_argument_group("what is measured")
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
        "--limit", type=int, help="number of images: spread evenly over a folder's classes, the first ones of an array"
    )
    _add_preparation(ara)
    _add_attack(ara)
    _add_work(ara)
    ara.set_defaults(run=_ara, refuse=ara.error)


def _add_preparation(ara: argparse.ArgumentParser) -> None:
    group = ara.add_argument_group("how images are prepared")
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


def _add_attack(ara: argparse.ArgumentParser) -> None:
    group = ara.add_argument_group("what is looked for")
    group.add_argument("--criterion", choices=("misclassified", "below_chance"), default="misclassified")
    group.add_argument(
        "--attack", default="minimum_norm", help="by name (default: %(default)s); see the command plugins"
    )
    group.add_argument("--effort", choices=("fast", "standard", "thorough"), help="of attacks that know efforts")
    group.add_argument("--norm", choices=("rmse", "l2", "linf"), help="default: the attack's (rmse)")
    group.add_argument(
        "--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"), help="box of the images (default: the attack's)"
    )
    group.add_argument(
        "--chance",
        type=_chance,
        default="uniform",
        help="uniform (default), majority or a fraction: accuracy of guessing",
    )


def _add_work(ara: argparse.ArgumentParser) -> None:
    group = ara.add_argument_group("how the work is done")
    group.add_argument("--output", type=Path, required=True, help="folder for chunks and results")
    group.add_argument(
        "--doubts",
        choices=("quick", "full", "off"),
        default="quick",
        help="how closely to look for reasons to distrust the figure (default: %(default)s)",
    )
    group.add_argument("--restart", action="store_true", help="throw away what an earlier run left there")
    group.add_argument("--device", default="auto", help="of torch (default: a GPU where there is one)")
    group.add_argument(
        "--chunk-size",
        "--batch-size",
        type=int,
        default=64,
        help="images attacked at once and saved together (default: %(default)s)",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of the CPU, for each process (default: %(default)s); another number may change the figures' last bits",
    )
    group.add_argument(
        "--timeout",
        type=float,
        default=300.0,
        metavar="SECONDS",
        help="how long a process may be silent before the others give up (default: %(default)g)",
    )


def _ara(parsed: argparse.Namespace) -> int:
    from captum_lipschitz.measure import AraSettings, run_ara
    from captum_lipschitz.measure.attacks import make_attack

    options = {name: value for name, value in vars(parsed).items() if name not in ("run", "refuse")}
    lists = {name: tuple(value) for name, value in options.items() if isinstance(value, list)}
    try:
        settings = AraSettings(**{**options, **lists})
        make_attack(settings)
    except CaptumLipschitzError as error:
        parsed.refuse(str(error))
    run_ara(settings, say=_say)
    return 0


def _chance(text: str) -> str | float:
    """A word, or a number; which of them are right is the settings' business."""
    try:
        return float(text)
    except ValueError:
        return text


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
