"""Train one of the networks, measure it, and write both to a folder: see README.md beside this file.

python examples/cifar10/reproduce.py robust --data cifar10 --output runs/robust
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from cifar10_training.images import Images, load_images, synthetic_images
from cifar10_training.machine import prepare
from cifar10_training.measuring import Instrument, said
from cifar10_training.recipe import Recipe, overrides
from cifar10_training.recipes import RECIPES, SHORTENED
from cifar10_training.runs import is_trained, read_network, read_run, save_figures, save_network
from cifar10_training.training import Training

from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError


def main(arguments: list[str] | None = None) -> int:
    """Train and measure, or say what is wrong and return 2."""
    parsed = _parse(arguments)
    try:
        prepare(parsed.device)
        instrument = Instrument(parsed.effort, parsed.images, parsed.below_chance, parsed.batch, parsed.measure_on)
        recipe = chosen_recipe(parsed.recipe, shortened=parsed.shortened, changes=parsed.set)
        images = chosen_images(parsed.data, parsed.synthetic).to(parsed.device)
        _train(recipe, images, parsed)
        _measure(instrument, images, parsed)
    except CaptumLipschitzError as error:
        print(f"reproduce.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def chosen_recipe(name: str, *, shortened: bool, changes: list[str]) -> Recipe:
    """The recipe of that name, shortened if asked for, with entries changed."""
    recipe = SHORTENED.of(RECIPES[name]) if shortened else RECIPES[name]
    return recipe.changed(**overrides(changes))


def chosen_images(data: Path | None, synthetic: int | None) -> Images:
    """Those in the folder, or so many synthetic ones."""
    if synthetic is not None:
        return synthetic_images(synthetic)
    if data is None:
        raise InvalidInputError("data: expected --data FOLDER, or --synthetic IMAGES")
    return load_images(data)


def _train(recipe: Recipe, images: Images, parsed: argparse.Namespace) -> None:
    if is_trained(parsed.output):
        read_run(parsed.output).check(recipe, parsed.seed, images)
        print(f"{parsed.output}: trained already")
        return
    training = Training(recipe, images.train, seed=parsed.seed, compile_mode=parsed.compile)
    trained = training.finish(show_progress=not parsed.quiet)
    save_network(parsed.output, parsed.name or parsed.recipe, training, trained, images)
    print(
        f"{parsed.output}: {trained.steps} steps in {trained.seconds:.0f} s, loss {trained.loss:.3f}, "
        f"strength {trained.strength:.4g}",
        flush=True,
    )


def _measure(instrument: Instrument, images: Images, parsed: argparse.Namespace) -> None:
    network = read_network(parsed.output).to(parsed.device)
    figures = instrument.measure(network, images, show_progress=not parsed.quiet)
    if instrument.part == "test":
        save_figures(parsed.output, figures)
    print(
        f"{parsed.output}: on {instrument.part} images: accuracy {figures['accuracy']:.4f}, attack ARA "
        f"{said(figures['attack'])}, {figures['attack']['not_found']} not found"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("recipe", choices=sorted(RECIPES))
    add("--data", type=Path, help="folder with CIFAR-10, see README.md")
    add("--synthetic", type=int, metavar="IMAGES", help="patterns and noise instead of data")
    add("--output", type=Path, required=True, help="folder for weights.safetensors and results.json")
    add("--name", help="what the run is compared under (default: the recipe's name)")
    add("--seed", type=int, default=0)
    add("--shortened", action="store_true", help="a smaller network and fewer steps, for a CPU")
    add("--set", nargs="+", default=[], metavar="NAME=VALUE", help="entries of the recipe to change, as epochs=2")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--compile", metavar="MODE", help="torch.compile's mode: default, reduce-overhead (CUDA graphs), ...")
    add(
        "--measure-on", choices=["test", "held_out"], default="test", help="held_out to choose settings; writes nothing"
    )
    add("--effort", choices=["fast", "standard", "thorough"], default="thorough")
    add("--images", type=int, default=1000, help="attacked, from the first on (default: %(default)s)")
    add("--below-chance", type=int, default=1000, help="of these, for the BTR areas (default: %(default)s)")
    add("--batch", type=int, default=250, help="images attacked together (default: %(default)s)")
    add("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
