"""Accuracy, attack ARA and BTR ARA of finished runs, the images shared among processes, resumable: see README.md.

torchrun --standalone --nproc-per-node 8 examples/imagenet/evaluate.py runs/robust --against runs/plain --data imagenet
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from imagenet_training.trained import FinishedRun, choose, read_run

from captum_lipschitz import AraResult, compare
from captum_lipschitz._files import write_whole
from captum_lipschitz._reading import one_line
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError
from captum_lipschitz.measure import AraSettings, run_ara

_CRITERIA = {"attack": "misclassified", "btr": "below_chance"}


def main() -> int:
    """The exit status."""
    parsed = _parsed()
    try:
        run = read_run(parsed.run)
        against = None if parsed.against is None else read_run(parsed.against)
        results = _measured(run, parsed)
        others = {} if against is None else _measured(against, parsed)
        if results:  # in the first process
            _tell(run, results, others)
    except (CaptumLipschitzError, OSError) as error:
        sys.stderr.write(f"evaluate.py: {one_line(error)}\n")
        return 1
    return 0


def _parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("run", type=Path, help="output folder of train.py or finetune.py")
    parser.add_argument("--against", type=Path, metavar="RUN", help="another, to compare with on the same images")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the folder of class folders")
    parser.add_argument("--validation", default="val", help="the folder of class folders (default: %(default)s)")
    parser.add_argument("--limit", type=int, help="number of images, spread evenly over the classes")
    parser.add_argument("--effort", default="standard", choices=("fast", "standard", "thorough"))
    parser.add_argument("--chunk-size", type=int, default=64, help="images attacked at once (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for each process")
    parser.add_argument("--restart", action="store_true", help="throw away what an earlier measurement left")
    return parser.parse_args()


def _measured(run: FinishedRun, parsed: argparse.Namespace) -> dict[str, AraResult]:
    """Both areas, in the run's folder; nothing in processes other than the first."""
    results: dict[str, AraResult] = {}
    for name, criterion in _CRITERIA.items():
        settings = AraSettings(
            model=choose(run),
            weights=run.weights,
            data=parsed.data / parsed.validation,
            class_index=_class_index(run),
            output=run.folder / "evaluation" / name,
            criterion=criterion,
            effort=parsed.effort,
            bounds=(0.0, 1.0),
            resize=run.recipe.resize,
            crop=run.recipe.resolution,
            mean=run.recipe.mean,
            std=run.recipe.std,
            limit=parsed.limit,
            chunk_size=parsed.chunk_size,
            threads=parsed.threads,
            restart=parsed.restart,
        )
        result = run_ara(settings, say=lambda text, name=name: print(f"{run.folder.name}, {name}: {text}"))  # type: ignore[misc]
        if result is not None:
            results[name] = result
    return results


def _class_index(run: FinishedRun) -> Path:
    """Class folders as the network numbers them, also where some of them are missing here."""
    path = run.folder / "classes.json"
    if not path.exists():
        write_whole(path, json.dumps({name: number for number, name in enumerate(run.classes)}, indent=2).encode())
    return path


def _tell(run: FinishedRun, results: dict[str, AraResult], others: dict[str, AraResult]) -> None:
    found: dict[str, Any] = {"images": len(results["attack"].distances)}
    found["clean_accuracy"] = results["attack"].clean_accuracy
    if others:
        found["clean_accuracy_against"] = others["attack"].clean_accuracy
    for name, result in results.items():
        told = result.to_dict()  # where an infinite area is None
        found[name] = {part: told[part] for part in ("area", "interval", "not_found")}
        if name in others:
            found[name] |= _compared(name, result, others[name])
    write_whole(run.folder / "evaluation" / "evaluation.json", (json.dumps(found, indent=2) + "\n").encode())


def _compared(name: str, result: AraResult, other: AraResult) -> dict[str, Any]:
    """The paired ratio, or why there is none: a single image without an answer can make an area endless."""
    try:
        comparison = compare(result, other)
    except InvalidInputError as error:
        print(f"{name}: no ratio ({error})")
        return {"no_ratio": str(error)}
    print(f"{name}: {comparison}")
    told = comparison.to_dict()
    return {part: told[part] for part in ("ratio", "ratio_interval")}


if __name__ == "__main__":
    sys.exit(main())
