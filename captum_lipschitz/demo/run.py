"""The demo: two networks, one plain and one regularised, trained, measured, explained and written down."""

from __future__ import annotations

import math
import platform
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from captum_lipschitz import (
    AdaptiveStrength,
    AraComparison,
    AraResult,
    HalfHuberReLU,
    LipschitzRegularizer,
    MinimumNormAttack,
    accuracy_robustness_area,
    compare,
)
from captum_lipschitz.demo.digits import Digits, build_network, load_digits
from captum_lipschitz.demo.files import write_json, write_network
from captum_lipschitz.demo.pictures import draw_curves, draw_explanations, explain, pick
from captum_lipschitz.demo.training import default_optimizer, train
from captum_lipschitz.errors import InvalidInputError

_PACKAGES = ("captum-lipschitz", "torch", "captum", "numpy", "scikit-learn")


@dataclass(frozen=True)
class DemoSettings:
    """Everything that the demo's figures depend on; it goes into ``results.json``.

    Attributes:
        seed: of the weights, the order of the images and the regularizer's draws; the test images stay the same.
        epochs: of training, for both networks.
        target_loss: cross entropy that the adaptive strength holds.
        initial_strength: psi_0.
        attack_steps: of ``MinimumNormAttack``.
        test_images: how many of the 450 test images are measured.
        explained: how many digits are explained.
    """

    seed: int = 0
    epochs: int = 30
    target_loss: float = 0.1
    initial_strength: float = 100.0
    attack_steps: int = 50
    test_images: int = 450
    explained: int = 6

    @classmethod
    def quick(cls, seed: int = 0) -> DemoSettings:
        """A few seconds' worth, to see that everything works; the figures mean nothing."""
        return cls(seed=seed, epochs=2, attack_steps=8, test_images=60, explained=2)


@dataclass(frozen=True)
class Measured:
    """One trained network and what was measured about it."""

    model: nn.Module
    attack: AraResult
    btr: AraResult
    training_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """The figures as JSON's types; an infinite one is ``None``."""
        attack, btr = self.attack.to_dict(), self.btr.to_dict()
        return {
            "clean_accuracy": attack["clean_accuracy"],
            "clean_accuracy_interval": wilson_interval(self.attack.clean_accuracy, len(self.attack)),
            "attack_ara": attack["area"],
            "attack_ara_interval": attack["interval"],
            "attack_not_found": attack["not_found"],
            "btr_ara": btr["area"],
            "btr_ara_interval": btr["interval"],
            "btr_not_found": btr["not_found"],
            "training_seconds": self.training_seconds,
            "attack_distances": attack["distances"],
            "btr_distances": btr["distances"],
        }


def run_demo(
    output: Path,
    *,
    settings: DemoSettings | None = None,
    device: torch.device | str = "cpu",
    show_progress: bool = True,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Train a plain and a regularised network on digits, measure both, and write pictures, figures and weights.

    Args:
        output: folder that is made where absent; files of an earlier run in it are replaced.
        settings: see ``DemoSettings``.
        device: where to train and measure.
        show_progress: progress bars, on the error stream.
        say: takes the table and the last word.

    Returns:
        The content of ``results.json``.

    Raises:
        InvalidInputError: the folder cannot be written to, or the device not be used; before any work.
        MissingDependencyError: scikit-learn is not installed.
    """
    settings = settings or DemoSettings()
    _prepare(output)
    device = _device(device)
    digits = Digits(*(part.to(device) for part in load_digits()))
    networks: dict[str, Measured] = {}
    for name, activation, penalised in (("plain", nn.ReLU, False), ("regularised", HalfHuberReLU, True)):
        networks[name] = measure(
            name, activation, digits, settings, penalised=penalised, device=device, show_progress=show_progress
        )
        write_network(output / f"{name}.safetensors", networks[name].model)
    plain, regularised = networks["plain"], networks["regularised"]
    comparisons = {
        "attack": _compared(regularised.attack, plain.attack),
        "btr": _compared(regularised.btr, plain.btr),
    }
    say(table(networks, comparisons))  # before anything else is written: a full disk must not take the figures along
    results = _results(networks, comparisons, settings, device)
    write_json(output / "results.json", results)
    _draw(output, digits, networks, settings)
    say(f"Written to {output}: {', '.join(sorted(path.name for path in output.iterdir()))}")
    return results


def measure(
    name: str,
    activation: Callable[[], nn.Module],
    digits: Digits,
    settings: DemoSettings,
    *,
    penalised: bool,
    optimizer: Callable[[Iterable[Tensor]], Optimizer] = default_optimizer,
    device: torch.device | str = "cpu",
    show_progress: bool = True,
) -> Measured:
    """Train one network, with or without the penalty, and measure both areas."""
    model = build_network(activation, seed=settings.seed).to(device)
    strength = AdaptiveStrength(target_loss=settings.target_loss, initial=settings.initial_strength)
    draws = torch.Generator().manual_seed(settings.seed)
    seconds = train(
        model,
        digits.train_images,
        digits.train_labels,
        epochs=settings.epochs,
        seed=settings.seed,
        regularizer=LipschitzRegularizer(strength=strength, generator=draws) if penalised else None,
        optimizer=optimizer,
        name=f"Training, {name}",
        show_progress=show_progress,
    )
    test = (digits.test_images[: settings.test_images], digits.test_labels[: settings.test_images])
    attack = MinimumNormAttack(steps=settings.attack_steps)
    areas = [
        accuracy_robustness_area(model, test, attack=attack, criterion=criterion, show_progress=show_progress)
        for criterion in ("misclassified", "below_chance")
    ]
    return Measured(model, areas[0], areas[1], seconds)


def table(networks: dict[str, Measured], comparisons: dict[str, AraComparison | None]) -> str:
    """The demo's one table, as text."""
    rows: list[tuple[str, ...]] = [("", "clean accuracy", "attack ARA (RMSE)", "BTR ARA (RMSE)", "training")]
    for name, network in networks.items():
        accuracy = _with_interval(
            network.attack.clean_accuracy, wilson_interval(network.attack.clean_accuracy, len(network.attack)), 3
        )
        areas = [_with_interval(area.area, area.interval, 4) for area in (network.attack, network.btr)]
        rows.append((name, accuracy, *areas, f"{network.training_seconds:.0f} s"))
    ratios = ["not finite" if c is None else _with_interval(c.ratio, c.ratio_interval, 2) for c in comparisons.values()]
    rows.append(("ratio (paired)", "", *ratios, ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    missing = {name: n.attack.not_found + n.btr.not_found for name, n in networks.items()}
    note = f"Images that no perturbation was found for: {missing}; intervals are 95%, over the sampling of test images."
    return "\n".join([*lines, note])


def wilson_interval(share: float, count: int) -> tuple[float, float]:
    """95% interval of a share of ``count`` independent images (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count)) / (1 + z * z / count)
    return centre - half, centre + half


def _versions() -> dict[str, str]:
    """Versions of what the figures depend on; a package run from its source folder may have none."""
    return {"python": platform.python_version(), **{package: _version(package) for package in _PACKAGES}}


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _prepare(output: Path) -> None:
    """Make the folder, and find out before the work whether it can be written to."""
    try:
        output.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=output):
            pass
    except OSError as error:
        raise InvalidInputError(f"output: expected a folder that can be written to, got {output} ({error})") from error


def _device(name: torch.device | str) -> torch.device:
    """A device that a tensor can be put on."""
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise InvalidInputError(f"device: expected one that torch can use here, got {name} ({reason})") from error


def _with_interval(value: float, interval: tuple[float, float], digits: int) -> str:
    return f"{value:.{digits}f} [{interval[0]:.{digits}f}, {interval[1]:.{digits}f}]"


def _compared(a: AraResult, b: AraResult) -> AraComparison | None:
    """The comparison, or ``None`` where an area is infinite or zero and ratios say nothing."""
    return compare(a, b) if math.isfinite(a.area) and math.isfinite(b.area) and b.area > 0 else None


def _draw(output: Path, digits: Digits, networks: dict[str, Measured], settings: DemoSettings) -> None:
    rows = pick(digits.test_labels, settings.explained)
    images, labels = digits.test_images[rows], digits.test_labels[rows]
    with torch.no_grad():
        logits = networks["regularised"].model(images)
    runners_up = logits.scatter(1, labels[:, None], -math.inf).argmax(1)
    explanations = [explain(name, network.model, images, labels, runners_up) for name, network in networks.items()]
    draw_explanations(output / "explanations.png", images, labels, runners_up, explanations)
    draw_curves(
        output / "curves.png",
        {name: network.attack for name, network in networks.items()},
        {name: network.btr for name, network in networks.items()},
    )


def _results(
    networks: dict[str, Measured],
    comparisons: dict[str, AraComparison | None],
    settings: DemoSettings,
    device: torch.device | str,
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for name, comparison in comparisons.items():
        known = {} if comparison is None else comparison.to_dict()
        figures[f"{name}_ara_ratio"] = known.get("ratio")
        figures[f"{name}_ara_ratio_interval"] = known.get("ratio_interval")
    return {
        **figures,
        **{name: network.to_dict() for name, network in networks.items()},
        "settings": asdict(settings),
        "seed": settings.seed,
        "device": str(device),
        "threads": torch.get_num_threads(),
        "versions": _versions(),
    }
