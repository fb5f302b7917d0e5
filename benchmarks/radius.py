"""The cheap radius, margin over gradient, beside attacked distances: on the authors' networks and CIFAR-10 images.

    python benchmarks/radius.py FOLDER [--images 64] [--device cpu]

FOLDER holds ``cifar10_subset.npz`` and ``authors-cifar10/``. Prints a Markdown table, which ``docs/radius.md`` quotes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from captum_lipschitz import accuracy_robustness_area, local_lipschitz, margin_radius, radius_calibration
from captum_lipschitz.metrics.area import area
from captum_lipschitz.models import PreActResNet44

_STEEPNESS = 16  # images whose Jacobian's norm is found; each takes up to 400 backward passes


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    with np.load(arguments.folder / "cifar10_subset.npz", allow_pickle=False) as arrays:
        images = torch.from_numpy(arrays["test_images"][: arguments.images]).to(arguments.device) / 255
        labels = torch.from_numpy(arrays["test_labels"][: arguments.images]).long().to(arguments.device)
    print("| network, criterion | ARA | area by radius | radius / distance | 5% to 95% | rank correlation | images |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    networks = {}
    for name in ("standard", "robust"):
        path = arguments.folder / "authors-cifar10" / f"resnet44-{name}.safetensors"
        networks[name] = PreActResNet44.from_safetensors(path).to(arguments.device).eval()
        for criterion in ("misclassified", "below_chance"):
            _row(name, networks[name], images, labels, criterion)
    print()
    for name, model in networks.items():
        _constant(name, model, images[:_STEEPNESS])


def _row(name: str, model: PreActResNet44, images: Tensor, labels: Tensor, criterion: str) -> None:
    result = accuracy_robustness_area(model, (images, labels), criterion=criterion, doubts="off")
    radii = margin_radius(model, images, labels, criterion=criterion)
    found = radius_calibration(radii, result.distances)
    low, _, high = found.quantiles
    by_radius = area(radii, result.chance_accuracy)
    print(
        f"| `{name}`, {criterion} | {result.area:.4f} | {by_radius:.4f} | {found.ratio:.3f} | {low:.2f} to {high:.2f} "
        f"| {found.rank_correlation:.3f} | {found.count} |",
        flush=True,
    )


def _constant(name: str, model: PreActResNet44, images: Tensor) -> None:
    began = time.perf_counter()
    per_l2 = local_lipschitz(model, images)
    seconds = time.perf_counter() - began
    print(
        f"- `{name}`, {len(images)} images: spectral norm of the Jacobian, logits per unit of L2: median "
        f"{per_l2.median():.3g} ({per_l2.min():.3g} to {per_l2.max():.3g}); per unit of rho 55.4 times that; "
        f"{seconds:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
