"""The paper's figure for a folder of images: what a finished run's network would add to each for more of a class.

python examples/imagenet/explain.py runs/robust --images pictures --output explanations
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from imagenet_training.numbers import at_least_one
from imagenet_training.recipe import Recipe
from imagenet_training.trained import read_run
from torch import Tensor, nn
from torchvision.transforms import v2

from captum_lipschitz import AdversarialAttribution, visualize
from captum_lipschitz._reading import one_line, read_json
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError
from captum_lipschitz.measure.folder import read_class_index
from captum_lipschitz.measure.images import as_rgb, check_enlarged, opened_image

_NAMES_HELP = 'JSON, {"0": ["n01440764", "tench"]} or {"n01440764": [0, "tench"]}: names in place of the folders'
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def main() -> int:
    """The exit status."""
    parsed = _parsed()
    try:
        run = read_run(parsed.run)
        network = run.network().to(parsed.device)
        paths = sorted(path for path in parsed.images.rglob("*") if path.suffix.lower() in _ENDINGS)[: parsed.limit]
        if not paths:
            raise InvalidInputError(f"images: expected files of {', '.join(_ENDINGS)} in {parsed.images}, got none")
        parsed.output.mkdir(parents=True, exist_ok=True)
        names = _names(run.classes, parsed.class_names)
        for place, path in enumerate(paths):
            image = _read(path, run.recipe).to(parsed.device)
            file = parsed.output / f"{place:04d}-{path.stem}.png"
            _draw(network, image, names, path.name, file, rho=parsed.rho, top=parsed.top)
            print(file)
    except (CaptumLipschitzError, OSError) as error:
        sys.stderr.write(f"explain.py: {one_line(error)}\n")
        return 1
    return 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", type=Path, help="output folder of train.py or finetune.py")
    parser.add_argument("--images", type=Path, required=True, help="folder of images, folders in it included")
    parser.add_argument("--output", type=Path, required=True, help="folder for one PNG per image")
    parser.add_argument("--rho", type=float, default=0.05, help="size of the change, RMSE (default: %(default)s)")
    parser.add_argument(
        "--top", type=at_least_one, default=3, help="classes, the most probable ones (default: %(default)s)"
    )
    parser.add_argument("--limit", type=at_least_one, help="number of images")
    parser.add_argument("--class-names", type=Path, help=_NAMES_HELP)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def _names(folders: list[str], path: Path | None) -> list[str]:
    """Names in the order of the class's numbers, from JSON that has some for the folders of the run.

    Raises:
        InvalidInputError: the file is of another form, or of other folders.
    """
    if path is None:
        return folders
    if not set(read_class_index(path)) & set(folders):  # which also says what is expected, where it is not that
        raise InvalidInputError(f"class-names: expected names of the run's folders, such as {folders[0]}, in {path}")
    told = read_json(path)
    pairs = [(key, value) for key, value in told.items() if isinstance(value, list) and len(value) > 1]
    named = {str(first if isinstance(first, str) else key): str(name) for key, (first, name, *_) in pairs}
    return [named.get(folder, folder) for folder in folders]


def _read(path: Path, recipe: Recipe) -> Tensor:
    """One image as evaluate.py sees it, (1, 3, H, W) in [0, 1]; validation in training resizes in integers instead."""
    prepare = v2.Compose([v2.Resize(recipe.resize), v2.CenterCrop(recipe.resolution), v2.PILToTensor()])
    with opened_image(path, argument="images") as image:
        width, height = (recipe.resize * side // min(image.size) for side in image.size)
        check_enlarged(path, width, height, argument="images")
        pixels: Tensor = prepare(as_rgb(image, path, argument="images"))
    return pixels.float().unsqueeze(0) / 255


def _draw(network: nn.Module, image: Tensor, names: list[str], title: str, file: Path, *, rho: float, top: int) -> None:
    with torch.no_grad():
        chosen = network(image)[0].topk(min(top, len(names))).indices
    attributions = AdversarialAttribution(network).attribute_classes(image, chosen, rho=rho, bounds=(0, 1))
    visualize(attributions, image, model=network, classes=chosen, class_names=names, image_titles=[title], save=file)


if __name__ == "__main__":
    sys.exit(main())
