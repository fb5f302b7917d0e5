"""The library against what the paper's authors published: their pictures, their distances, their networks.

    python benchmarks/published.py FOLDER [--skip-paper-attack]

FOLDER holds ``cifar10_subset.npz`` and ``authors-cifar10/``. Prints a Markdown list.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from captum_lipschitz import AdversarialAttribution, Attack, MinimumNormAttack, PaperAttack
from captum_lipschitz.models import PreActResNet44

EFFORTS: tuple[Literal["fast", "standard", "thorough"], ...] = ("fast", "standard", "thorough")
CRITERIA = {"attack": "misclassified", "btr": "below_chance"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--skip-paper-attack", action="store_true", help="which takes minutes")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    with np.load(folder / "cifar10_subset.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["test_images"]) / 255
        labels = torch.from_numpy(arrays["test_labels"]).long()
    authors = folder / "authors-cifar10"
    robust, standard = (
        PreActResNet44.from_safetensors(authors / f"resnet44-{name}.safetensors") for name in ("robust", "standard")
    )
    for name, index in (("ship_test2", 2), ("frog_test5", 5)):
        _picture(authors / f"explanation-robust-{name}.png", robust, images[index], labels[index])
    _reach(standard, images[:16], labels[:16])
    published = {key: torch.tensor(values) for key, values in json.loads(_text(authors)).items()}
    attacks: list[tuple[str, Attack, int]] = [
        *((f"MinimumNormAttack(effort={effort!r})", MinimumNormAttack(effort=effort), 64) for effort in EFFORTS),
    ]
    if not arguments.skip_paper_attack:
        attacks.append(("PaperAttack(objective='cross_entropy')", PaperAttack(objective="cross_entropy"), 16))
    for name, attack, count in attacks:
        for key, criterion in CRITERIA.items():
            _distances(f"{name}, {key}", attack, robust, images[:count], labels[:count], criterion, published[key])


def _text(authors: Path) -> str:
    return (authors / "distances-robust-64.json").read_text(encoding="utf-8")


def _picture(path: Path, model: PreActResNet44, image: Tensor, label: Tensor) -> None:
    attribution = AdversarialAttribution(model).attribute(image[None], target=label[None])
    ours = (255 * (image + attribution[0]).clamp(0, 1)).round()
    published = torch.from_numpy(np.array(Image.open(path, formats=("PNG",)).convert("RGB"))).permute(2, 0, 1)
    difference = (ours - published).abs()
    same = (difference == 0).double().mean()
    print(f"- {path.stem}: {100 * same:.3f}% of the values identical, largest difference {int(difference.max())}")


def _reach(model: PreActResNet44, images: Tensor, labels: Tensor) -> None:
    _, delta = AdversarialAttribution(model).attribute(images, target=labels, return_convergence_delta=True)
    reached = delta + 0.1
    print(
        f"- explanations of `standard`, {len(images)} images: rho {reached.min():.4f} to {reached.max():.4f}, ", end=""
    )
    print(f"median {reached.median():.4f}")


def _distances(
    name: str, attack: Attack, model: PreActResNet44, images: Tensor, labels: Tensor, criterion: str, published: Tensor
) -> None:
    result = attack(model, images, labels, criterion)
    published = published[: len(images)]
    open_rows = published > 0
    ratios = (result.distances / published)[open_rows].log()
    solved_at_once = bool((result.distances[~open_rows] == 0).all())
    gradients = result.gradient_evaluations[open_rows].double()
    print(f"- {name}: geometric mean ratio {ratios.mean().exp():.4f} ", end="")
    print(f"({ratios.min().exp():.2f} to {ratios.max().exp():.2f}) over {int(open_rows.sum())} images, ", end="")
    print(f"{int((~result.found).sum())} not found, exactly 0 for the rest: {solved_at_once}, ", end="")
    print(f"gradients {gradients.mean():.0f} in the mean, {int(gradients.max())} at most", flush=True)


if __name__ == "__main__":
    main()
