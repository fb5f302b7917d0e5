"""Accuracy-Robustness Areas by many attacks, side by side on the same images, with what each cost.

    python benchmarks/ara.py FOLDER --network robust --images 64 --output robust.json
    python benchmarks/ara.py --merge robust.json standard.json

FOLDER holds ``cifar10_subset.npz``, ``authors-cifar10/`` and ``imagenet/``. Prints Markdown. Others' attacks come from
the plugins ``captum-lipschitz-advlib`` and ``captum-lipschitz-torchattacks``; those that are not installed are left
out, and said so. Attacks run one after the other, on the same batches; an answer counts with the size that is measured
here, after the model was run on it once more.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from contenders import CONTENDERS, Box, Contender, contender
from networks import NETWORKS, Task, load
from records import AUTHORS, Record, Report, machine
from tables import tables
from torch import Tensor, nn

from captum_lipschitz import RMSE
from captum_lipschitz.criteria import as_criterion
from captum_lipschitz.errors import InvalidInputError, MissingDependencyError, UnknownNameError

CRITERIA = ("misclassified", "below_chance")
BOXES: dict[str, Box] = {"none": None, "unit": (0.0, 1.0)}


def main() -> None:
    """Measure, or read what was measured, and print."""
    arguments = _arguments()
    if arguments.merge:
        report = Report.merged(arguments.merge)
    else:
        torch.set_num_threads(arguments.threads)
        report = Report([machine(arguments.device)], [], [])
        for network in arguments.network:
            task = load(arguments.folder, network, first=arguments.first, count=arguments.images)
            for record in _records(task, arguments, report.notes):
                report.records.append(record)
                if arguments.output:
                    report.save(arguments.output)
    if arguments.merge and arguments.output:
        report.save(arguments.output)
    print("\n".join(["", *(f"Machine: {name}.\n" for name in report.machines)]))
    print("\n".join([*tables(report.records), *(f"- {note}" for note in report.notes)]))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--network", nargs="+", choices=NETWORKS, default=["robust"])
    parser.add_argument("--images", type=int, default=64, metavar="N")
    parser.add_argument("--first", type=int, default=0, metavar="INDEX", help="of the images")
    parser.add_argument("--attacks", type=_names, default=list(CONTENDERS), help=f"of {','.join(CONTENDERS)}")
    parser.add_argument("--criterion", nargs="+", choices=CRITERIA, default=list(CRITERIA))
    parser.add_argument("--bounds", nargs="+", choices=BOXES, default=list(BOXES))
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=100, help="gradients that a peer may spend on an image, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--output", type=Path, help="a JSON file, written after each attack, for --merge")
    parser.add_argument("--merge", type=Path, nargs="+", metavar="JSON", help="only print tables of these files")
    arguments = parser.parse_args()
    if (arguments.folder is None) == (arguments.merge is None):
        parser.error("expected either FOLDER or --merge")
    return arguments


def _names(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in CONTENDERS]
    if unknown:
        raise argparse.ArgumentTypeError(f"expected some of {','.join(CONTENDERS)}, got {','.join(unknown)}")
    return names


def _records(task: Task, arguments: argparse.Namespace, notes: list[str]) -> Iterator[Record]:
    """Every attack with every criterion and box, one after the other. What is left out is added to the notes."""
    with torch.no_grad():
        classes = task.model(task.images[:1]).shape[1]
    for box in arguments.bounds:
        for criterion in arguments.criterion:
            head = (task.network, arguments.first, criterion, BOXES[box] is not None)
            if criterion in task.published and BOXES[box] is None:
                yield Record(*head, AUTHORS, distances=task.published[criterion].tolist())
            for name in arguments.attacks:
                try:
                    made = contender(name, BOXES[box], gradients=arguments.steps, classes=classes)
                    refused = _warm_up(made, criterion) if made else ""
                except (UnknownNameError, MissingDependencyError, InvalidInputError) as error:
                    _note(notes, _reason(name, error))
                    continue
                if made is None:
                    _note(notes, f"{name}: left out on {task.network}, where one step costs {classes} gradients")
                elif refused:
                    yield Record(*head, made.label, refused=refused)
                else:
                    yield _record(made, task, head, arguments, chance=1 / classes)


def _reason(name: str, error: Exception) -> str:
    """Why an attack is left out; an error that does not say so is raised again."""
    if isinstance(error, UnknownNameError):
        return f"{name}: left out, as no installed plugin brings it"
    if isinstance(error, MissingDependencyError):
        return f"{name}: left out. {error}"
    if str(error).startswith("bounds:"):
        return f"{name}: only in the box"
    raise error


def _record(
    made: Contender, task: Task, head: tuple[str, int, str, bool], arguments: argparse.Namespace, *, chance: float
) -> Record:
    """One attack on all images."""
    model = task.model.to(arguments.device)
    distances: list[float] = []
    gradients: list[int] = []
    seconds = 0.0
    for images, labels in zip(task.images.split(arguments.batch), task.labels.split(arguments.batch), strict=True):
        clean, classes = images.to(arguments.device), labels.to(arguments.device)
        start = time.perf_counter()
        result = made.attack(model, clean, classes, head[2])
        gradients += result.gradient_evaluations.tolist()  # waits for the device
        seconds += time.perf_counter() - start
        distances += _checked(model, clean, result.adversarial_inputs, classes, criterion=head[2], boxed=head[3])
    print(f"{head[0]}, {head[2]}, {'box' if head[3] else 'no box'}: {made.label} {seconds:.1f} s", file=sys.stderr)
    return Record(*head, made.label, distances=distances, gradients=gradients, seconds=seconds, chance=chance)


def _checked(
    model: nn.Module, clean: Tensor, adversarial: Tensor, labels: Tensor, *, criterion: str, boxed: bool
) -> list[float]:
    """The size of each perturbation in RMSE, ``inf`` where the model does not meet the criterion on it."""
    goal = as_criterion(criterion)
    with torch.no_grad():
        solved = goal.value(model(clean), labels) <= 0
        met = goal.value(model(adversarial), labels) <= 0
    if boxed:
        met &= ((adversarial >= 0) & (adversarial <= 1)).flatten(1).all(1)
    sizes = RMSE().size(adversarial - clean).double()
    sizes = torch.where(met, sizes, torch.full_like(sizes, math.inf))
    found: list[float] = torch.where(solved, torch.zeros_like(sizes), sizes).tolist()
    return found


def _warm_up(made: Contender, criterion: str) -> str:
    """Run once on next to nothing, so that what is imported at first use is not timed.

    Returns:
        Why the attack refuses the criterion, or nothing.
    """
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 20))
    images = torch.full((1, 3, 2, 2), 0.5)
    try:
        made.attack(model, images, model(images).argmax(1), criterion)
    except InvalidInputError as error:
        if not str(error).startswith("criterion:"):
            raise
        return str(error)
    return ""


def _note(notes: list[str], note: str) -> None:
    if note not in notes:
        notes.append(note)
        print(note, file=sys.stderr)


if __name__ == "__main__":
    main()
