"""The command lines of train.py and finetune.py."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from captum_lipschitz._reading import one_line
from captum_lipschitz.errors import CaptumLipschitzError
from imagenet_training.numbers import at_least_one, at_least_zero
from imagenet_training.recipe import Recipe, read_recipe
from imagenet_training.run import Run


def parse_training(
    description: str | None, arguments: Sequence[str] | None = None, *, weights: bool = False
) -> tuple[Recipe, Run]:
    """A recipe and a run from the command line, or exit status 2 and what is wrong with it.

    Args:
        description: of the command.
        arguments: ``None`` for those that Python was called with.
        weights: whether ``--weights`` is to be given: fine-tuning.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", type=Path, required=True, help="recipe, a YAML file; see configs/")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="NAME=VALUE", help="entries of the recipe to change, as epochs=2"
    )
    if weights:
        parser.add_argument(
            "--weights", required=True, help="file of trained weights, or torchvision for its own (downloaded)"
        )
    _add_run(parser)
    parsed = vars(parser.parse_args(arguments))
    config, overrides, trained = parsed.pop("config"), parsed.pop("set"), parsed.pop("weights", None)
    try:
        recipe = read_recipe(config, overrides + ([f"weights={trained}"] if trained else []))
    except CaptumLipschitzError as error:
        parser.error(one_line(error))
    return recipe, Run(**parsed)


def _add_run(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, help="folder that holds the two folders of class folders")
    add("--train", default="train", help="the one to train on (default: %(default)s)")
    add("--validation", default="val", help="the one to validate on (default: %(default)s)")
    add("--synthetic", type=at_least_one, metavar="IMAGES", help="noise instead of data")
    add("--classes", type=at_least_one, default=1000, help="of synthetic images (default: %(default)s)")
    add("--output", type=Path, required=True, help="folder for checkpoints, logs, weights and results")
    add("--resume", action="store_true", help="go on from the last checkpoint there, if there is one")
    add(
        "--workers",
        type=at_least_zero,
        default=8,
        help="processes that decode images, for each GPU (default: %(default)s)",
    )
    add("--threads", type=at_least_one, help="of the CPU, for each process")
    add("--checkpoint-every", type=at_least_one, metavar="STEPS", help="default: at the end of each epoch")
    add("--keep", type=at_least_one, default=2, help="checkpoints that stay (default: %(default)s)")
    add("--log-every", type=at_least_one, default=50, metavar="STEPS", help="default: %(default)s")
    add("--validate-every", type=at_least_one, default=1, metavar="EPOCHS", help="default: %(default)s")
    add(
        "--ara-images",
        type=at_least_zero,
        default=64,
        help="of the quick ARA at validation, 0 for none (default: %(default)s)",
    )
    add("--tensorboard", action="store_true", help="write OUTPUT/tensorboard")
    add(
        "--stop-after",
        type=at_least_one,
        metavar="STEPS",
        help="save and stop after so many steps, to measure or to test",
    )
