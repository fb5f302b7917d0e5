"""Kills an ImageNet run at random moments, lets it go on each time, and compares its weights with a run left alone.

    python benchmarks/imagenet_kills.py FOLDER --output SCRATCH

FOLDER holds ``imagenet/val``, 200 images. Two processes of ``torchrun`` (gloo, CPU) train ResNet-18 at 64 pixels by the
robust recipe for two epochs with a checkpoint after every second step. SIGKILL goes to torchrun and all below it, at a
random moment after a random step, so also while a checkpoint or a validation is under way. Each start takes another
number of loader workers. Prints a Markdown table; the exit status is 1 where one bit of the weights differs.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "imagenet"
SETTINGS = (
    "epochs=2 batch_size=16 resolution=64 resize=64 warmup_epochs=0.5 precision=float32 learning_rate=0.02 "
    "initial_strength=1.0e-3 target_loss=5.0"
)
STEPS = 24  # of both epochs


@dataclass(frozen=True)
class Kill:
    """One of them: after which step of the log, so many seconds later."""

    step: int
    later: float


def main() -> int:
    """The exit status."""
    arguments = _arguments()
    alone, killed = arguments.output / "alone", arguments.output / "killed"
    for folder in (alone, killed):
        shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    _ended(_start(alone, arguments.folder, workers=2))
    seconds = time.monotonic() - began
    print(f"left alone: {seconds:.0f} s, weights {_digest(alone)}\n")
    print("| kill | asked: after step | seconds later | had logged | checkpoints left | begun anew with workers |")
    print("| --- | --- | --- | --- | --- | --- |")
    for number, kill in enumerate(_moments(arguments.kills, arguments.seed, longest=seconds / STEPS)):
        before = len(_lines(killed))
        process = _start(killed, arguments.folder, workers=number % 3)
        reached = _kill(process, killed, kill, before)
        found = ", ".join(sorted(path.name for path in (killed / "checkpoints").glob("*"))) or "none"
        print(f"| {number + 1} | {kill.step} | {kill.later:.2f} | {reached} | {found} | {number % 3} |", flush=True)
    told = _ended(_start(killed, arguments.folder, workers=1))
    print(f"\nthe last start: {told.splitlines()[0]}")
    same = (alone / "weights.safetensors").read_bytes() == (killed / "weights.safetensors").read_bytes()
    print(
        f"after {arguments.kills} kills: weights {_digest(killed)}, {'the same' if same else 'NOT THE SAME'} to the bit"
    )
    return 0 if same else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="that holds imagenet/val")
    parser.add_argument("--output", type=Path, required=True, help="folder for both runs; what is there is removed")
    parser.add_argument("--kills", type=int, default=10, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: %(default)s)")
    return parser.parse_args()


def _moments(kills: int, seed: int, *, longest: float) -> list[Kill]:
    """Sorted, as a run does not come to an earlier step again."""
    source = torch.Generator().manual_seed(seed)
    steps = torch.randint(STEPS, (kills,), generator=source).sort().values.tolist()
    later = (torch.rand(kills, generator=source) * longest).tolist()
    return [Kill(step, seconds) for step, seconds in zip(steps, later, strict=True)]


def _start(output: Path, folder: Path, *, workers: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(EXAMPLE / "train.py"), "--config", str(EXAMPLE / "configs" / "resnet18_robust.yaml")]
    command += ["--set", *SETTINGS.split(), "--data", str(folder / "imagenet"), "--train", "val"]
    command += ["--output", str(output), "--resume", "--workers", str(workers), "--threads", "1"]
    command += ["--log-every", "1", "--checkpoint-every", "2", "--ara-images", "0"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)  # noqa: S603 - our own


def _ended(process: subprocess.Popen[str]) -> str:
    told, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(told)
    return told


def _kill(process: subprocess.Popen[str], output: Path, kill: Kill, before: int) -> int:
    """Wait for the moment, and kill; the last step that this start logged, 0 for none."""
    while process.poll() is None and _last_step(_lines(output)[before:]) < kill.step:
        time.sleep(0.01)
    time.sleep(kill.later)
    if process.poll() is not None:
        raise SystemExit(f"the run ended before it was killed:\n{process.communicate()[0]}")
    tree = psutil.Process(process.pid)
    for one in [tree, *tree.children(recursive=True)]:
        one.send_signal(signal.SIGKILL)
    process.communicate()
    return _last_step(_lines(output)[before:])


def _lines(output: Path) -> list[str]:
    log = output / "log.jsonl"
    return log.read_text(encoding="utf-8").splitlines() if log.exists() else []


def _last_step(lines: list[str]) -> int:
    return max(
        (int(line.partition('"step": ')[2].partition(",")[0]) for line in lines if "images_per" in line), default=0
    )


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "weights.safetensors").read_bytes()).hexdigest()[:16]


if __name__ == "__main__":
    sys.exit(main())
