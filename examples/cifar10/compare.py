"""Train and measure every method at every setting and seed, then compare them at equal accuracy: see README.md.

python examples/cifar10/compare.py --data cifar10 --output comparison
python examples/cifar10/compare.py --data cifar10 --output comparison --shortened --workers 2 --images 200
python examples/cifar10/compare.py --output comparison --tables
"""

from __future__ import annotations

import argparse
import dataclasses
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

import torch
from cifar10_training.images import Images, load_images, synthetic_images
from cifar10_training.machine import prepare
from cifar10_training.measuring import Instrument, said
from cifar10_training.methods import METHODS
from cifar10_training.recipe import Recipe
from cifar10_training.runs import Run, is_trained, read_network, read_run, save_figures, save_network
from cifar10_training.tables import write_tables
from cifar10_training.training import Training

from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError


@dataclass(frozen=True)
class Job:
    """One run of the comparison.

    Attributes:
        method: a key of ``METHODS``.
        value: of its knob.
        recipe: what is trained.
        seed: of the training.
        folder: of the run.
    """

    method: str
    value: float
    recipe: Recipe
    seed: int
    folder: Path


@dataclass(frozen=True)
class Setting:
    """What all jobs share, and each worker is told once."""

    data: Path | None
    synthetic: int | None
    device: str
    compile_mode: str | None
    instrument: Instrument
    below_chance_seeds: int
    threads: int

    def images(self) -> Images:
        """What all jobs train and measure on."""
        if self.synthetic is not None:
            return synthetic_images(self.synthetic)
        if self.data is None:
            raise InvalidInputError("data: expected --data FOLDER, or --synthetic IMAGES")
        return load_images(self.data)

    def instrument_of(self, job: Job) -> Instrument:
        """What a job's network is measured by."""
        spared = job.seed >= self.below_chance_seeds
        return dataclasses.replace(self.instrument, below_chance=0) if spared else self.instrument


def main(arguments: list[str] | None = None) -> int:
    """Run what has not been run, then write the tables; 2 if something is wrong."""
    parsed = _parse(arguments)
    try:
        if not parsed.tables:
            _run(parsed)
        print(write_tables(parsed.output))
    except CaptumLipschitzError as error:
        print(f"compare.py: error: {error}", file=sys.stderr)
        return 2
    return 0


def jobs_of(output: Path, *, methods: list[str], seeds: int, shortened: bool) -> Iterator[Job]:
    """All runs, one seed after the other, so that a comparison that is cut short has whole seeds."""
    for seed in range(seeds):
        for method in methods:
            for value, recipe in METHODS[method].recipes(shortened=shortened):
                yield Job(method, value, recipe, seed, output / method / f"{value:g}" / f"seed-{seed}")


def _run(parsed: argparse.Namespace) -> None:
    prepare(parsed.device)
    instrument = Instrument(parsed.effort, parsed.images, parsed.below_chance, parsed.batch, parsed.measure_on)
    setting = Setting(
        parsed.data,
        parsed.synthetic,
        parsed.device,
        parsed.compile,
        instrument,
        parsed.below_chance_seeds,
        parsed.threads,
    )
    images = setting.images()
    jobs = list(jobs_of(parsed.output, methods=parsed.methods, seeds=parsed.seeds, shortened=parsed.shortened))
    for job in jobs:  # what cannot be used is said before any work
        if is_trained(job.folder):
            _check(read_run(job.folder), job, setting, images)
    began = time.perf_counter()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(parsed.workers, context, initializer=_prepare, initargs=(setting,)) as pool:
        futures = [pool.submit(_work, job) for job in jobs]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                print(f"{done} of {len(jobs)}, {time.perf_counter() - began:.0f} s: {future.result()}", flush=True)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _check(run: Run, job: Job, setting: Setting, images: Images) -> None:
    """Raise unless a run that is there is the one that a job would make."""
    try:
        run.check(job.recipe, job.seed, images)
    except InvalidInputError as error:
        raise InvalidInputError(f"{job.folder}: {error}") from error
    if run.figures and run.figures["instrument"] != vars(setting.instrument_of(job)):
        raise InvalidInputError(
            f"{job.folder}: expected a run measured as asked, {vars(setting.instrument_of(job))}, got one by "
            f"{run.figures['instrument']}; choose another folder"
        )


_prepared: tuple[Setting, Images]  # of a worker, which runs many jobs on the same images


def _prepare(setting: Setting) -> None:
    global _prepared  # noqa: PLW0603 - how a pool's workers are given what they share
    torch.set_num_threads(setting.threads)
    prepare(setting.device)
    _prepared = setting, setting.images().to(setting.device)


def _work(job: Job) -> str:
    setting, images = _prepared
    if not is_trained(job.folder):
        training = Training(job.recipe, images.train, seed=job.seed, compile_mode=setting.compile_mode)
        save_network(job.folder, job.method, training, training.finish(), images)
    run = read_run(job.folder)
    if not run.figures:
        network = read_network(job.folder).to(setting.device)
        run = save_figures(job.folder, setting.instrument_of(job).measure(network, images))
    return (
        f"{job.method} {job.value:g}, seed {job.seed}: {run.training['seconds']:.0f} s "
        f"({run.training['cpu_seconds']:.0f} CPU s), accuracy {run.figures['accuracy']:.3f}, attack ARA "
        f"{said(run.figures['attack'])}"
    )


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", type=Path, help="folder with CIFAR-10, see README.md")
    add("--synthetic", type=int, metavar="IMAGES", help="patterns and noise instead of data")
    add("--output", type=Path, required=True, help="folder of the runs' folders")
    add("--tables", action="store_true", help="no runs: only the tables of those that are there")
    add("--shortened", action="store_true", help="a smaller network and fewer steps, for a CPU")
    add("--methods", nargs="+", choices=list(METHODS), default=list(METHODS), metavar="METHOD")
    add("--seeds", type=int, default=3)
    add("--workers", type=int, default=1, help="processes (default: %(default)s)")
    add("--threads", type=int, default=1 if "cpu" in _default_device() else 4, help="of the CPU, for each process")
    add("--device", default=_default_device())
    add("--compile", metavar="MODE", help="torch.compile's mode: default, reduce-overhead (CUDA graphs), ...")
    add(
        "--measure-on", choices=["test", "held_out"], default="test", help="held_out, in a folder of its own, to choose"
    )
    add("--effort", choices=["fast", "standard", "thorough"], default="thorough")
    add("--images", type=int, default=1000, help="attacked, from the first on (default: %(default)s)")
    add("--below-chance", type=int, default=1000, help="of these, for the BTR areas (default: %(default)s)")
    add("--below-chance-seeds", type=int, default=1000, metavar="SEEDS", help="the first so many; default: all")
    add("--batch", type=int, default=250, help="images attacked together (default: %(default)s)")
    return parser.parse_args(arguments)


def _default_device() -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    sys.exit(main())
