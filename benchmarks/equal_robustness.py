"""Is a network as robust when the penalty is formed on every k-th step only? Paired seeds, on digits and on CIFAR-10.

    python benchmarks/equal_robustness.py digits --output digits.json
    python benchmarks/equal_robustness.py cifar FOLDER --output cifar.json

FOLDER holds ``cifar10_subset.npz``: 5,085 images to train on, 1,017 for the accuracy, the first 512 of those to attack.
Networks of the same seed have the same first weights and the same images in the same order, and differ in ``every``
alone. Prints Markdown; the intervals are Student's, over the seeds' log ratios.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from records import machine
from scipy import stats
from torch import Tensor, nn

from captum_lipschitz import (
    AdaptiveStrength,
    HalfHuberReLU,
    LipschitzRegularizer,
    MinimumNormAttack,
    accuracy_robustness_area,
)
from captum_lipschitz.demo.digits import build_network, load_digits
from captum_lipschitz.demo.run import DemoSettings
from captum_lipschitz.demo.training import train

LEAST_RATIO = 0.9  # what the lower bound has to reach
PLAIN = 0  # in the place of ``every``: no penalty


@dataclass(frozen=True)
class Task:
    """Images, a network for them, and how it is trained.

    Attributes:
        images: by part, ``train`` and ``test``: images in [0, 1] and labels.
        network: makes one from a seed.
        epochs: of training.
        target_loss: cross entropy that the adaptive strength holds.
        initial_strength: psi_0.
        steps: of the attack.
        attacked: how many of the test images are attacked; the accuracy is that of all.
    """

    images: dict[str, tuple[Tensor, Tensor]]
    network: Callable[[int], nn.Module]
    epochs: int
    target_loss: float
    initial_strength: float
    steps: int
    attacked: int


@dataclass(frozen=True)
class Trained:
    """One network.

    Attributes:
        every: on which steps the penalty was formed; 0 without it.
        area: attack ARA, RMSE.
        strength: the controller's psi after the last step.
        seconds: of training.
        not_found: images that no perturbation was found for.
    """

    seed: int
    every: int
    accuracy: float
    area: float
    strength: float
    seconds: float
    not_found: int


def main() -> None:
    """Train, attack, compare, and write after each seed."""
    arguments = _arguments()
    torch.set_num_threads(1)
    task = _cifar(arguments) if arguments.task == "cifar" else _digits()
    print(f"{arguments.task}, {machine('cpu')}", flush=True)
    networks: list[Trained] = []
    began = time.perf_counter()
    for seed in range(arguments.seeds):
        networks += [_trained(task, seed, every) for every in (PLAIN, 1, *arguments.every)]
        print(f"seed {seed}: {time.perf_counter() - began:.0f} s", flush=True)
        if arguments.output:
            arguments.output.write_text(json.dumps([asdict(network) for network in networks], indent=1))
    print(_table(networks, arguments.every))


def _trained(task: Task, seed: int, every: int) -> Trained:
    """Train one network and attack it."""
    model = task.network(seed)
    controller = AdaptiveStrength(target_loss=task.target_loss, initial=task.initial_strength)
    draws = torch.Generator().manual_seed(seed)
    regularizer = LipschitzRegularizer(strength=controller, every=max(every, 1), generator=draws)
    seconds = train(
        model,
        *task.images["train"],
        epochs=task.epochs,
        seed=seed,
        regularizer=None if every == PLAIN else regularizer,
        show_progress=False,
    )
    images, labels = task.images["test"]
    with torch.no_grad():
        accuracy = float((model(images).argmax(1) == labels).double().mean())
    test = images[: task.attacked], labels[: task.attacked]
    found = accuracy_robustness_area(model, test, attack=MinimumNormAttack(steps=task.steps))
    strength = 0.0 if every == PLAIN else controller.strength
    return Trained(seed, every, accuracy, found.area, strength, seconds, found.not_found)


def _digits() -> Task:
    """The demo's, with its settings."""
    digits, settings = load_digits(), DemoSettings()
    return Task(
        {"train": (digits.train_images, digits.train_labels), "test": (digits.test_images, digits.test_labels)},
        lambda seed: build_network(HalfHuberReLU, seed=seed),
        settings.epochs,
        settings.target_loss,
        settings.initial_strength,
        settings.attack_steps,
        settings.test_images,
    )


def _cifar(arguments: argparse.Namespace) -> Task:
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    with np.load(arguments.folder / "cifar10_subset.npz", allow_pickle=False) as arrays:
        for part in ("train", "test"):
            images = torch.from_numpy(arrays[f"{part}_images"]) / 255
            parts[part] = (images, torch.from_numpy(arrays[f"{part}_labels"]).long())
    return Task(parts, _colour_network, arguments.epochs, arguments.target_loss, 220.0, 50, arguments.images)


def _colour_network(seed: int, width: int = 32) -> nn.Module:
    """The demo's network for colour images, twice as wide: (N, 3, 32, 32) to (N, 10)."""
    with torch.random.fork_rng(devices=[]):
        model = build_network(HalfHuberReLU, seed=seed, width=width)
        torch.manual_seed(seed)
        model[0] = nn.Conv2d(3, width, 3, stride=2, padding=1, bias=False)
    return model


def _table(networks: list[Trained], every: list[int]) -> str:
    lines = [
        "",
        "| | accuracy | attack ARA | ARA / every=1 | 95% interval | accuracy - every=1, mean (worst) | seconds |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    exact = [network for network in networks if network.every == 1]
    for chosen in (PLAIN, 1, *every):
        mine = [network for network in networks if network.every == chosen]
        pairs = list(zip(mine, exact, strict=True))
        ratio, low, high = geometric_mean([one.area / other.area for one, other in pairs])
        gained = [one.accuracy - other.accuracy for one, other in pairs]
        kept = f"{ratio:.3f} | {low:.3f} to {high:.3f} | {statistics.mean(gained):+.4f} ({min(gained):+.4f})"
        lines.append(
            f"| {'plain' if chosen == PLAIN else f'every={chosen}'} "
            f"| {_range([network.accuracy for network in mine], 3)} | {_range([network.area for network in mine], 4)} "
            f"| {'1 | | ' if chosen == 1 else kept} | {_range([network.seconds for network in mine], 0)} |"
        )
    lines.append(f"\n{len(exact)} seeds, median (least to most). Not found: {sum(n.not_found for n in networks)}.")
    for chosen in every:
        ratios = [
            one.area / other.area for one, other in zip((n for n in networks if n.every == chosen), exact, strict=True)
        ]
        low = geometric_mean(ratios)[1]
        verdict = "reached" if low >= LEAST_RATIO else "missed"
        lines.append(f"every={chosen}: lower bound {low:.3f}, {LEAST_RATIO} {verdict}; by seed {_listed(ratios)}.")
    return "\n".join(lines)


def geometric_mean(ratios: list[float]) -> tuple[float, float, float]:
    """Of paired ratios, with its two-sided 95% interval: Student's, of the logarithms."""
    logs = [math.log(ratio) for ratio in ratios]
    middle = statistics.mean(logs)
    if len(logs) < 2:
        return math.exp(middle), 0.0, math.inf
    half = float(stats.t.ppf(0.975, len(logs) - 1)) * statistics.stdev(logs) / math.sqrt(len(logs))
    return math.exp(middle), math.exp(middle - half), math.exp(middle + half)


def _range(values: list[float], places: int) -> str:
    return f"{statistics.median(values):.{places}f} ({min(values):.{places}f} to {max(values):.{places}f})"


def _listed(values: list[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=["digits", "cifar"])
    parser.add_argument("folder", type=Path, nargs="?", help="for cifar")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--every", type=int, nargs="+", default=[4, 8])
    parser.add_argument("--epochs", type=int, default=15, help="of cifar")
    parser.add_argument("--target-loss", type=float, default=1.5, help="of cifar")
    parser.add_argument("--images", type=int, default=512, help="of cifar, to attack")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    if arguments.task == "cifar" and arguments.folder is None:
        parser.error("cifar: the folder of cifar10_subset.npz is missing")
    return arguments


if __name__ == "__main__":
    main()
