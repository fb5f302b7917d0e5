"""Fine-tunes the paper's plainly trained CIFAR-10 network into a robust one, and measures it before and after.

    python benchmarks/finetuning.py FOLDER --output finetuning.json --weights finetuned.safetensors
    python benchmarks/finetuning.py FOLDER --measure-only --effort thorough --weights finetuned.safetensors

FOLDER holds ``cifar10_subset.npz``, ``cifar10_jpeg.tar.xz`` and ``authors-cifar10/``. Trains on the JPEG images, all
50,000 drawn without repetition, augmented as published, with the exact penalty at every step; re-estimates BatchNorm's
averages on 2,048 pixel-exact training images; measures on pixel-exact test images. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import tarfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from networks import load
from PIL import Image
from records import machine
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from captum_lipschitz import (
    AdaptiveStrength,
    AraResult,
    HalfHuberReLU,
    LipschitzRegularizer,
    MinimumNormAttack,
    accuracy_robustness_area,
    compare,
    replace_activations,
)
from captum_lipschitz.training.finetuning import HalfHuberSchedule
from captum_lipschitz.training.recalibration import recalibrate_batch_norm

ALL_TEST_IMAGES = 1017
RECALIBRATED_ON = 2048
FINAL_DELTA = 0.5
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
PADDING, SIDE = 4, 32


def main() -> None:
    """Measure, fine-tune, measure again, print."""
    arguments = _arguments()
    torch.set_num_threads(1)
    torch.manual_seed(arguments.seed)
    chosen = load(arguments.folder, "standard", first=arguments.first, count=arguments.images)
    every = load(arguments.folder, "standard", first=0, count=ALL_TEST_IMAGES)
    document: dict[str, Any] = {"machine": machine("cpu"), "settings": _settings(arguments)}

    def measure(name: str) -> AraResult:
        attack = MinimumNormAttack(effort=arguments.effort)
        pairs = zip(chosen.images.split(64), chosen.labels.split(64), strict=True)
        result = accuracy_robustness_area(chosen.model, list(pairs), attack=attack, show_progress=True)
        document[name] = {"accuracy": _accuracy(chosen.model, every.images, every.labels), **result.to_dict()}
        _save(document, arguments.output)
        return result

    before = measure("before")
    if arguments.measure_only:
        if not arguments.keep_relu:
            replace_activations(chosen.model, partial(HalfHuberReLU, FINAL_DELTA))
        chosen.model.load_state_dict(load_file(arguments.weights))
    else:
        data, exact = _jpeg_training_images(arguments.folder), _exact_training_images(arguments.folder)
        document["training"] = _fine_tune(chosen.model, data, exact, arguments)
        if arguments.weights:
            save_file(chosen.model.state_dict(), arguments.weights)
    after = measure("after")
    document["ratio"] = compare(after, before).to_dict()
    _save(document, arguments.output)
    print(_table(document, before, after))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=460)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=0.07, help="its peak; it warms up, then falls to 0")
    parser.add_argument("--target-loss", type=float, default=0.85, help="trades accuracy for robustness")
    parser.add_argument("--initial", type=float, default=0.2, help="the penalty's first strength")
    parser.add_argument("--gain", type=float, default=0.08, help="of the strength's controller")
    parser.add_argument("--clip", type=float, default=2.0, help="largest norm of the loss's gradient")
    parser.add_argument("--rounding", type=float, default=0.4, help="share of the steps in which delta grows")
    parser.add_argument("--keep-relu", action="store_true", help="the penalty alone, for comparison")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=256, metavar="N", help="test images that are attacked")
    parser.add_argument("--first", type=int, default=0, metavar="INDEX", help="of these")
    parser.add_argument("--effort", choices=["fast", "standard", "thorough"], default="fast")
    parser.add_argument("--output", type=Path, default=Path("finetuning.json"))
    parser.add_argument("--weights", type=Path, help="a safetensors file to write the network to")
    parser.add_argument("--measure-only", action="store_true", help="of a network that --weights holds already")
    arguments = parser.parse_args()
    if arguments.measure_only and arguments.weights is None:
        parser.error("--measure-only: expected --weights")
    return arguments


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    places = ("folder", "output", "weights")
    return {name: value for name, value in vars(arguments).items() if name not in places}


def _save(document: dict[str, Any], path: Path) -> None:
    """Write JSON, whole or not at all."""
    draft = path.with_name(path.name + ".part")
    draft.write_text(json.dumps(document, indent=1), encoding="utf-8")
    draft.replace(path)


@dataclass(frozen=True)
class Images:
    """Training images, uint8 (N, 3, 32, 32), and labels, (N,)."""

    images: Tensor
    labels: Tensor


def _exact_training_images(folder: Path) -> Tensor:
    with np.load(folder / "cifar10_subset.npz", allow_pickle=False) as arrays:
        return torch.from_numpy(arrays["train_images"][:RECALIBRATED_ON]) / 255


def _jpeg_training_images(folder: Path) -> Images:
    images, labels = [], []
    with tarfile.open(folder / "cifar10_jpeg.tar.xz") as archive:
        for entry in archive:
            parts = PurePosixPath(entry.name).parts
            file = archive.extractfile(entry) if "train" in parts and entry.name.endswith(".jpg") else None
            if file is not None:
                picture = Image.open(io.BytesIO(file.read()), formats=("JPEG", "PNG")).convert("RGB")
                images.append(np.asarray(picture).transpose(2, 0, 1))
                labels.append(CLASSES.index(parts[-2]))
    return Images(torch.from_numpy(np.stack(images)), torch.tensor(labels))


def _fine_tune(model: nn.Module, data: Images, exact: Tensor, arguments: argparse.Namespace) -> dict[str, Any]:
    """Train in place; evaluation mode afterwards.

    Returns:
        Seconds, final strength, and means over the last tenth of the steps.
    """
    started = time.perf_counter()
    draws = torch.Generator().manual_seed(arguments.seed)
    rounding = max(1, int(arguments.rounding * arguments.steps))
    schedule = None if arguments.keep_relu else HalfHuberSchedule(model, steps=rounding, final_delta=FINAL_DELTA)
    strength = AdaptiveStrength(
        target_loss=arguments.target_loss, initial=arguments.initial, gain=arguments.gain, fall=1.0
    )
    regularizer = LipschitzRegularizer(strength=strength)
    optimizer = torch.optim.SGD(model.parameters(), lr=arguments.learning_rate, momentum=0.9, weight_decay=1e-4)
    rate = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _rate(step, arguments.steps))
    history: list[dict[str, float]] = []
    model.train()
    with tqdm(_batches(data, arguments.steps, arguments.batch, draws), total=arguments.steps, desc="training") as bar:
        for images, labels in bar:
            inputs = _augmented(images, draws).requires_grad_()
            logits = model(inputs)
            task_loss = F.cross_entropy(logits, labels)
            output = regularizer(logits, inputs, labels, task_loss=task_loss)
            optimizer.zero_grad()
            output.loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), arguments.clip)
            optimizer.step()
            rate.step()
            if schedule is not None:
                schedule.step()
            history.append({"loss": task_loss.item(), "penalty": output.penalty.item()})
            bar.set_postfix(history[-1], strength=output.strength.item())
    model.eval()
    recalibrate_batch_norm(model, [_augmented(images, draws) for images in exact.split(128)])
    last = history[-max(1, arguments.steps // 10) :]
    means = {name: sum(entry[name] for entry in last) / len(last) for name in last[0]}
    return {"seconds": time.perf_counter() - started, "strength": strength.strength, **means}


def _rate(step: int, steps: int) -> float:
    """The learning rate's share of its peak: up in the first tenth of the steps, then down along a cosine."""
    warm = max(1.0, 0.1 * steps)
    fallen = max(0.0, step - warm) / max(1.0, steps - warm)
    return min(1.0, (step + 1) / warm) * (1 + math.cos(math.pi * min(1.0, fallen))) / 2


def _batches(data: Images, steps: int, size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    order: list[int] = []
    for _ in range(steps):
        if len(order) < size:
            order = torch.randperm(len(data.labels), generator=generator).tolist()
        rows, order = order[:size], order[size:]
        yield data.images[rows] / 255, data.labels[rows]


def _augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Pad by replication, flip every other one, crop, as published."""
    padded = F.pad(images, (PADDING,) * 4, mode="replicate")
    corners = torch.randint(2 * PADDING + 1, (len(images), 2), generator=generator).tolist()
    flipped = torch.rand(len(images), generator=generator) < 1 / 2
    crops = [image[:, y : y + SIDE, x : x + SIDE] for image, (y, x) in zip(padded, corners, strict=True)]
    cropped = torch.stack(crops)
    return torch.where(flipped[:, None, None, None], cropped.flip(3), cropped)


def _accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    with torch.no_grad():
        correct = [
            model(part).argmax(1) == truth for part, truth in zip(images.split(128), labels.split(128), strict=True)
        ]
    return torch.cat(correct).double().mean().item()


def _table(document: dict[str, Any], before: AraResult, after: AraResult) -> str:
    low, high = document["ratio"]["ratio_interval"]
    lines = [
        f"| | accuracy, {ALL_TEST_IMAGES} images | of the {len(before)} attacked | attack ARA | ratio | not found |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, result in (("before", before), ("after", after)):
        ratio = f"{document['ratio']['ratio']:.2f} [{low:.2f}, {high:.2f}]" if name == "after" else "1"
        area = f"{result.area:.3g} [{result.interval[0]:.3g}, {result.interval[1]:.3g}]"
        accuracy = f"{document[name]['accuracy']:.3f} | {result.clean_accuracy:.3f}"
        lines.append(f"| {name} | {accuracy} | {area} | {ratio} | {result.not_found} |")
    if training := document.get("training"):
        lines.append(_training_line(training))
    lines.append(f"Machine: {document['machine']}.")
    return "\n".join(lines)


def _training_line(training: dict[str, float]) -> str:
    return (
        f"Training: {training['seconds']:.0f} s, final strength {training['strength']:.4g}; in the last tenth cross "
        f"entropy {training['loss']:.3f}, penalty {training['penalty']:.3g}."
    )


if __name__ == "__main__":
    main()
