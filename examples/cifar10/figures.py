"""Draw the comparison's curves, and each network's explanations of the same images: see README.md.

python examples/cifar10/figures.py comparison --data cifar10 --output pictures
"""

from __future__ import annotations

import argparse
import statistics
import sys
from pathlib import Path

import matplotlib as mpl
import torch
from cifar10_training.images import CLASSES, load_images
from cifar10_training.measuring import area_of
from cifar10_training.methods import METHODS
from cifar10_training.runs import Run, read_network
from cifar10_training.tables import Runs, read_comparison
from matplotlib import pyplot as plt
from torch import Tensor, nn

from captum_lipschitz import AdversarialAttribution
from captum_lipschitz.errors import CaptumLipschitzError
from captum_lipschitz.models import PreActResNet44

# Okabe and Ito's colours, which the colour-blind can tell apart.
_COLOURS = dict(zip(METHODS, ("#000000", "#999999", "#E69F00", "#0072B2", "#D55E00", "#009E73"), strict=True))


def main(arguments: list[str] | None = None) -> int:
    """Draw; 2 if something is wrong."""
    parsed = _parse(arguments)
    mpl.use("Agg")
    try:
        runs = read_comparison(parsed.comparison)
        parsed.output.mkdir(parents=True, exist_ok=True)
        draw_trade_off(runs, parsed.output / "accuracy-and-area.png")
        draw_curves(runs, parsed.output / "robustness-curves.png")
        if parsed.data:
            test = load_images(parsed.data).test[: parsed.images]
            networks = _networks(runs, parsed.comparison, parsed.authors)
            draw_explanations(networks, test.inputs(), test.labels, parsed.output / "explanations.png")
    except CaptumLipschitzError as error:
        print(f"figures.py: error: {error}", file=sys.stderr)
        return 2
    print(f"{parsed.output}: {', '.join(sorted(path.name for path in parsed.output.glob('*.png')))}")
    return 0


def draw_trade_off(runs: Runs, path: Path) -> None:
    """Attack ARA against accuracy: a dot for each network, a line through the medians of each method's settings."""
    figure, ax = plt.subplots(figsize=(7, 5), layout="constrained")
    for method, settings in runs.items():
        colour = _COLOURS[method]
        medians = []
        for seeds in settings.values():
            # An infinite area, null in JSON, is none that can be drawn.
            points = [
                (run.figures["accuracy"], run.figures["attack"]["area"] or float("nan")) for run in seeds.values()
            ]
            accuracies, areas = zip(*points, strict=True)
            ax.scatter(accuracies, areas, s=12, color=colour, alpha=0.5, linewidths=0)
            medians.append((statistics.median(accuracies), statistics.median(areas)))
        ax.plot(*zip(*sorted(medians), strict=True), color=colour, label=METHODS[method].title)
    ax.set(xlabel="accuracy on clean images", ylabel="attack ARA (RMSE)")
    ax.set_ylim(bottom=0)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_curves(runs: Runs, path: Path) -> None:
    """Accuracy against the size of the perturbation: one network of each method, of the first seed."""
    figure, ax = plt.subplots(figsize=(7, 5.6), layout="constrained")
    ax.set_title("one network of each method, not equally accurate", fontsize=9)
    chance = 0.0
    for method, settings in runs.items():
        colour = _COLOURS[method]
        value = representative(method, settings)
        area = area_of(settings[value][min(settings[value])].figures["attack"])
        setting = "" if METHODS[method].knob == "epochs" else f", {METHODS[method].knob} {value:g}"
        label = f"{METHODS[method].title}{setting}: ARA {area.area:.4f}"
        sizes = torch.cat([torch.zeros(1, dtype=torch.float64), area.distances[area.distances.isfinite()].unique()])
        ax.step(sizes, area.curve(sizes), where="post", color=colour, label=label)
        chance = area.chance_accuracy
    ax.axhline(chance, color="0.6", linewidth=0.8, linestyle=":")
    ax.set(xlabel="perturbation size (RMSE)", ylabel="accuracy", ylim=(0, 1), xlim=(0, None))
    figure.legend(loc="outside lower center", ncols=1, frameon=False, fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def representative(method: str, settings: dict[float, dict[int, Run]]) -> float:
    """Which setting is drawn: the whole training of a plain network, the second lowest target loss or attack."""
    values = sorted(settings)
    return values[-1] if METHODS[method].knob == "epochs" else values[min(1, len(values) - 1)]


def draw_explanations(networks: dict[str, nn.Module], images: Tensor, labels: Tensor, path: Path) -> None:
    """Each image, and what each network would add to it to see more of its class (g_explain+).

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, figures of adversarial explanations; rho 0.1, 35 steps.
    """
    columns = {"image": images}
    for title, network in networks.items():
        columns[title] = (images + AdversarialAttribution(network).attribute(images, target=labels)).clamp(0, 1)
    size = (1.35 * len(columns), 1.35 * len(images) + 0.5)
    figure, axes = plt.subplots(len(images), len(columns), figsize=size, layout="constrained", squeeze=False)
    for column, (title, pictures) in enumerate(columns.items()):
        for row, picture in enumerate(pictures):
            ax = axes[row, column]
            ax.imshow(picture.permute(1, 2, 0), interpolation="nearest")
            ax.set(xticks=[], yticks=[])
            if not column:
                ax.set_ylabel(CLASSES[int(labels[row])], fontsize=8)
            if not row:
                ax.set_title(title, fontsize=7)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _networks(runs: Runs, comparison: Path, authors: Path | None) -> dict[str, nn.Module]:
    networks: dict[str, nn.Module] = {}
    for method, settings in runs.items():
        value = representative(method, settings)
        title = METHODS[method].title.removesuffix(", equal time").replace(" (PGD)", "").replace(" and ", "\nand ")
        setting = "" if METHODS[method].knob == "epochs" else f"\n{METHODS[method].knob} {value:g}"
        networks[title.replace("adversarial ", "adversarial\n") + setting] = read_network(
            comparison / method / f"{value:g}" / f"seed-{min(settings[value])}"
        )
    for path in sorted(authors.glob("resnet44-*.safetensors"), reverse=True) if authors else []:
        networks[f"authors'\n{path.stem.removeprefix('resnet44-')}"] = PreActResNet44.from_safetensors(path)
    return networks


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("comparison", type=Path, help="folder that compare.py wrote")
    add("--output", type=Path, required=True, help="folder for the pictures")
    add("--data", type=Path, help="folder with CIFAR-10: explanations are drawn too")
    add("--authors", type=Path, help="folder of the authors' networks, explained beside ours")
    add("--images", type=int, default=8, help="explained (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
