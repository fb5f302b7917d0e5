"""The command ``captum-lipschitz audit``: its options, and their way into ``AuditSettings``."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from captum_lipschitz._reading import one_line
from captum_lipschitz.cli_shared import add_place, add_preparation, add_subject, options_of
from captum_lipschitz.errors import CaptumLipschitzError

_DESCRIPTION = """\
Find out which claims about a model and its explanations the evidence supports: accuracy and robustness, whether attacks
invalidate the explanations of ten methods, and how faithful each method is. OUTPUT/report.html holds it all in one file
that needs no network; report.json and CSV files hold the figures. Finished steps are kept under OUTPUT: the same
command again goes on from there, and ends with the same figures.
"""


def add_audit(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command to the parser's."""
    audit = commands.add_parser("audit", help="audit a model and its explanations", description=_DESCRIPTION)
    what = add_subject(audit, limit=32)
    what.add_argument("--compare", metavar="MODEL", help="a second model, on the same images, prepared alike")
    what.add_argument("--compare-weights", type=Path, metavar="WEIGHTS", help="of the second model")
    what.add_argument(
        "--class-names",
        nargs="+",
        default=(),
        metavar="NAME",
        help="of all classes, class 0 first; or a file of them, one name a line or a JSON list (default: the folders')",
    )
    add_preparation(audit)
    _add_questions(audit)
    _add_work(audit)
    audit.set_defaults(run=_audit, refuse=audit.error)


def _add_questions(audit: argparse.ArgumentParser) -> None:
    group = audit.add_argument_group("what is looked at")
    group.add_argument(
        "--methods", nargs="+", default=(), metavar="NAME", help="of explanation (default: all ten; see the report)"
    )
    group.add_argument(
        "--effort",
        choices=("fast", "standard"),
        default="standard",
        help="fast leaves confined attacks out, and draws fewer samples (default: %(default)s)",
    )
    group.add_argument(
        "--rho", type=float, default=0.1, help="size of the adversarial explanation, RMSE (default: %(default)s)"
    )
    group.add_argument(
        "--bounds", type=float, nargs=2, metavar=("LOW", "HIGH"), help="box of adversarial images (default: none)"
    )


def _add_work(audit: argparse.ArgumentParser) -> None:
    group = audit.add_argument_group("how the work is done, and what is shown")
    add_place(group)
    group.add_argument(
        "--no-images",
        dest="images",
        action="store_false",
        help="neither images nor names of their files in any output, no maps of input x gradient, integrated gradients "
        "and guided backprop, which look like the image, and nothing of these left of earlier runs in OUTPUT; the "
        "other maps may still hint at shapes",
    )
    group.add_argument("--seed", type=int, default=0, help="of everything that draws (default: %(default)s)")
    group.add_argument(
        "--chunk-size",
        "--batch-size",
        type=int,
        default=8,
        help="images worked on at once and saved together (default: %(default)s)",
    )
    group.add_argument(
        "--threads",
        type=int,
        default=os.cpu_count() or 1,
        help="of the CPU (default: as many as it has); another number may change the figures' last bits",
    )


def _audit(parsed: argparse.Namespace) -> int:
    from captum_lipschitz.report.audit import run_audit
    from captum_lipschitz.report.settings import AuditSettings

    try:
        settings = AuditSettings(**options_of(parsed))
    except CaptumLipschitzError as error:
        parsed.refuse(one_line(error))
    run_audit(settings, say=_say)
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
