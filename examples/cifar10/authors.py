"""Measure the networks that the paper's authors published with this library's instrument: see README.md.

python examples/cifar10/authors.py NETWORKS --data cifar10 --output authors
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from cifar10_training.files import read_results
from cifar10_training.images import Images, load_images
from cifar10_training.machine import prepare
from cifar10_training.measuring import Instrument, area_of, said

from captum_lipschitz import AraComparison, AraResult, compare
from captum_lipschitz._files import write_whole
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError
from captum_lipschitz.models import PreActResNet44


@dataclass(frozen=True)
class Published:
    """What the paper's authors report of a network: 1,000 test images, 450 steps (their code's table for CIFAR-10)."""

    accuracy: float
    attack: float
    below_chance: float


PUBLISHED = {
    "standard": Published(0.9384, 0.0013, 0.0015),
    "adversarial": Published(0.8643, 0.0100, 0.0157),
    "robust": Published(0.6758, 0.0142, 0.0395),
    "all": Published(0.6790, 0.0188, 0.0414),
}


def main(arguments: list[str] | None = None) -> int:
    """Measure, write ``NAME.json`` for each network and ``authors.md``; 2 if something is wrong."""
    parsed = _parse(arguments)
    try:
        images = load_images(parsed.data).to(prepare(parsed.device))
        instrument = Instrument(parsed.effort, parsed.images, parsed.below_chance, parsed.batch)
        parsed.output.mkdir(parents=True, exist_ok=True)
        found = {
            name: path
            for name in PUBLISHED
            if (path := parsed.networks / f"resnet44-{name}.safetensors").is_file() and name in parsed.only
        }
        if not found:
            raise InvalidInputError(f"networks: expected resnet44-NAME.safetensors in {parsed.networks}, got none")
        rows = [_measured(name, path, images, instrument, parsed) for name, path in found.items()]
        text = "\n".join([*_HEAD, *rows])
        write_whole(parsed.output / "authors.md", (text + "\n").encode())
    except CaptumLipschitzError as error:
        print(f"authors.py: error: {error}", file=sys.stderr)
        return 2
    print(text)
    return 0


_HEAD = [
    "| network | | accuracy | attack ARA | BTR ARA | BTR ARA, fitted | T |",
    "| --- | --- | --- | --- | --- | --- | --- |",
]


def _measured(name: str, path: Path, images: Images, instrument: Instrument, parsed: argparse.Namespace) -> str:
    """Measure one network, or read what was measured; the table's rows."""
    results = parsed.output / f"{name}.json"
    if not results.is_file():
        network = PreActResNet44.from_safetensors(path).to(parsed.device).requires_grad_(requires_grad=False)
        figures = instrument.measure(network, images, show_progress=not parsed.quiet)
        figures["data"] = images.digests()
        write_whole(results, json.dumps(figures, indent=1).encode())
    figures = _read(results)
    if (figures.get("instrument"), figures.get("data")) != (vars(instrument), images.digests()):
        raise InvalidInputError(f"output: {results} was measured otherwise, or on other images; choose another folder")
    published = PUBLISHED[name]
    cells = [
        ["published, 1,000 images", *(f"{value:.4f}" for value in vars(published).values()), "", ""],
        [
            f"here, {_counts(figures)}",
            f"{figures['accuracy']:.4f}",
            *(
                said(figures[area]) if area in figures else ""
                for area in ("attack", "below_chance", "below_chance_fitted")
            ),
            f"{figures['temperature']:.2f}" if figures.get("temperature") else "",
        ],
    ]
    theirs = parsed.networks / f"distances-{name}-64.json"
    if theirs.is_file():
        known = _read(theirs)
        pairs = (("attack", "attack"), ("below_chance", "btr"))
        ratios = [_paired(figures[ours], known[key]) if ours in figures else "" for ours, key in pairs]
        cells.append([f"ours over theirs, the same {len(known['attack'])} images", "", *ratios, "", ""])
    return "\n".join(f"| {' | '.join([name, *row])} |" for row in cells)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_results(path)
    except (OSError, ValueError) as error:
        raise InvalidInputError(f"output, networks: {path} cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise InvalidInputError(f"output, networks: expected a JSON object in {path}, got {type(content).__name__}")
    return content


def _counts(figures: dict[str, Any]) -> str:
    instrument = figures["instrument"]
    return f"{instrument['images']} images (BTR {instrument['below_chance']}), {instrument['effort']}"


def _paired(ours: dict[str, Any], theirs: list[float]) -> str:
    """Ratio of our area to that of the authors' own distances, over the images that both have."""
    area = area_of(ours)
    count = min(len(area), len(theirs))
    solved = torch.tensor(theirs[:count]) == 0
    if not torch.equal(solved, area.distances[:count] == 0):
        raise InvalidInputError("networks: expected the authors' distances to be of the same images in the same order")
    settings: dict[str, Any] = {"norm": area.norm, "criterion": area.criterion, "gradient_evaluations": 0}

    def of(distances: torch.Tensor, attack: str) -> AraResult:
        return AraResult.of(
            distances[:count],
            area.labels[:count],
            area.correct[:count],
            chance_accuracy=area.chance_accuracy,
            class_chance_accuracy=area.class_chance_accuracy,
            attack=attack,
            **settings,
        )

    found: AraComparison = compare(of(area.distances, "ours"), of(torch.tensor(theirs, dtype=torch.float64), "theirs"))
    low, high = found.ratio_interval
    return f"{found.ratio:.3f} [{low:.3f}, {high:.3f}]"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("networks", type=Path, help="folder of resnet44-NAME.safetensors, and perhaps distances-NAME-64.json")
    add("--data", type=Path, required=True, help="folder with CIFAR-10, see README.md")
    add("--output", type=Path, required=True, help="folder for what is measured")
    add("--only", nargs="+", choices=sorted(PUBLISHED), default=sorted(PUBLISHED))
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--effort", choices=["fast", "standard", "thorough"], default="thorough")
    add("--images", type=int, default=1000, help="attacked, from the first on (default: %(default)s)")
    add("--below-chance", type=int, default=1000, help="of these, for the BTR areas (default: %(default)s)")
    add("--batch", type=int, default=250, help="images attacked together (default: %(default)s)")
    add("--quiet", action="store_true", help="no progress bars")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
