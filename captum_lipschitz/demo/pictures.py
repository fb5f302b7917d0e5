"""The demo's two pictures: what each network takes for a digit, and how far its accuracy holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from captum_lipschitz import AdversarialAttribution, AraResult
from captum_lipschitz.demo.files import replaced

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.image import AxesImage

RHO = 0.15


@dataclass(frozen=True)
class Explanation:
    """One network's view of some images: perturbations toward the true class and the runner-up, (N, 1, H, W)."""

    name: str
    true_class: Tensor
    runner_up: Tensor


def explain(name: str, model: nn.Module, images: Tensor, labels: Tensor, runners_up: Tensor) -> Explanation:
    """Adversarial explanations of both classes, of size ``RHO``."""
    attribution = AdversarialAttribution(model)
    toward = [attribution.attribute(images, target=target, rho=RHO) for target in (labels, runners_up)]
    return Explanation(name, *toward)


def draw_explanations(
    path: Path, images: Tensor, labels: Tensor, runners_up: Tensor, explanations: list[Explanation]
) -> None:
    """A row per image: the input, then for each network a signed heat map and the image plus it, for both classes."""
    from matplotlib.figure import Figure

    # A narrow empty column stands before each network's four.
    widths = [1.0] + [0.12, 1.0, 1.0, 1.0, 1.0] * len(explanations)
    width, height = 1.2 * sum(widths) + 1, 1.4 * len(images) + 0.6
    figure = Figure(figsize=(width, height))
    grid = {"left": 0.01, "right": 1 - 0.95 / width, "bottom": 0.05 / height, "top": 1 - 0.55 / height}
    axes = figure.subplots(
        len(images),
        len(widths),
        squeeze=False,
        width_ratios=widths,
        gridspec_kw={**grid, "wspace": 0.06, "hspace": 0.16},
    )
    limit = max(float(part.abs().quantile(0.995)) for e in explanations for part in (e.true_class, e.runner_up))
    heat: AxesImage | None = None
    for row in range(len(images)):
        _show(axes[row, 0], images[row], f"input: {int(labels[row])}")
        for position, explanation in enumerate(explanations):
            left = 1 + 5 * position
            axes[row, left].set_axis_off()
            cells = axes[row, left + 1 : left + 5]
            explained = ((labels, explanation.true_class), (runners_up, explanation.runner_up))
            for k, (target, deltas) in enumerate(explained):
                heat = _show_heat(cells[2 * k], deltas[row], f"toward {int(target[row])}", limit)
                _show(cells[2 * k + 1], images[row] + deltas[row], "input + map")
            if row == 0:
                _head(cells[0], f"{explanation.name} network")
    if heat is not None:
        scale = figure.add_axes((1 - 0.85 / width, 0.2, 0.15 / width, 0.6))
        figure.colorbar(heat, cax=scale, label=f"perturbation, RMSE about {RHO}")
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def draw_curves(path: Path, attack: dict[str, AraResult], btr: dict[str, AraResult]) -> None:
    """Accuracy over perturbation size, for both criteria side by side, all networks in each."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    titles = {"still classified correctly": attack, "still above chance (BTR)": btr}
    for ax, (title, results) in zip(figure.subplots(1, 2), titles.items(), strict=True):
        for name, result in results.items():
            result.plot(ax, label=name)
        ax.set(title=title, ylabel="share of images", xlim=(0, 1.2 * ax.get_xlim()[1]))  # room for the legend
        ax.spines[["top", "right"]].set_visible(False)
    with replaced(path) as temporary:
        figure.savefig(temporary, dpi=130, format="png")


def _head(ax: Axes, text: str) -> None:
    """A heading above a picture and its neighbours to the right."""
    ax.annotate(text, (0, 1), (0, 16), xycoords="axes fraction", textcoords="offset points", fontweight="bold")


def _show(ax: Axes, image: Tensor, title: str) -> None:
    _bare(ax, title)
    ax.imshow(image[0].detach().cpu().clamp(0, 1), cmap="gray", vmin=0, vmax=1)


def _show_heat(ax: Axes, delta: Tensor, title: str, limit: float) -> AxesImage:
    _bare(ax, title)
    return ax.imshow(delta[0].detach().cpu(), cmap="RdBu_r", vmin=-limit, vmax=limit)


def _bare(ax: Axes, title: str) -> None:
    ax.set_xticks([])
    ax.set_yticks([])
    ax.set_title(title, fontsize=7.5, pad=2)


def pick(labels: Tensor, count: int) -> Tensor:
    """Indices of the first image of each of the first ``count`` classes."""
    return torch.stack([(labels == digit).nonzero()[0, 0] for digit in range(count)])
