"""The command ``captum-lipschitz ara``: its options, and their way into ``AraSettings``."""

from __future__ import annotations

import argparse
import sys

from captum_lipschitz._reading import one_line
from captum_lipschitz.cli_shared import add_place, add_preparation, add_subject, options_of
from captum_lipschitz.errors import CaptumLipschitzError

_DESCRIPTION = """\
Measure how far a classifier's accuracy holds as its images are perturbed. Finished chunks of images are kept under
OUTPUT/chunks: the same command again goes on from there, and ends with the same figures. Under torchrun (torchrun
--nproc-per-node 4 -m captum_lipschitz ara ...) the processes, on one machine or several, share the chunks.
"""


def add_ara(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's."""
    ara = commands.add_parser("ara", help="measure a model's Accuracy-Robustness Area", description=_DESCRIPTION)
    add_subject(ara)
    add_preparation(ara)
    _add_attack(ara)
    _add_work(ara)
    ara.set_defaults(run=_ara, refuse=ara.error)


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
    group.add_argument(
        "--doubts",
        choices=("quick", "full", "off"),
        default="quick",
        help="how closely to look for reasons to distrust the figure (default: %(default)s)",
    )
    add_place(group)
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

    try:
        settings = AraSettings(**options_of(parsed))
        make_attack(settings)
    except CaptumLipschitzError as error:
        parsed.refuse(one_line(error))
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
