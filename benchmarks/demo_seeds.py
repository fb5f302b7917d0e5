"""The demo's figures over several seeds, with its two ingredients apart, and with another optimiser.

    python benchmarks/demo_seeds.py --seeds 5 --output seeds.json

Prints two Markdown tables. Half-Huber alone and the penalty on ReLU alone stand beside the plain network and both.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU, compare
from captum_lipschitz.demo.digits import load_digits
from captum_lipschitz.demo.run import DemoSettings, Measured, measure
from captum_lipschitz.demo.training import default_optimizer

VARIANTS: dict[str, tuple[Callable[[], nn.Module], bool]] = {
    "plain (ReLU)": (nn.ReLU, False),
    "half-Huber alone": (HalfHuberReLU, False),
    "penalty on ReLU": (nn.ReLU, True),
    "both (regularised)": (HalfHuberReLU, True),
}


def adamw(parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
    """Not the paper's; the plain network comes out more fragile with it."""
    return torch.optim.AdamW(parameters, lr=0.005)


OPTIMIZERS = {"SGD": default_optimizer, "AdamW": adamw}


def main() -> None:
    """Measure every variant with every seed and optimiser."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--optimizers", nargs="+", choices=OPTIMIZERS, default=list(OPTIMIZERS))
    parser.add_argument("--output", type=Path, default=Path("seeds.json"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    digits = load_digits()
    rows: list[dict[str, Any]] = []
    for optimizer in arguments.optimizers:
        for seed in range(arguments.seeds):
            networks = {
                name: measure(
                    name,
                    activation,
                    digits,
                    DemoSettings(seed=seed),
                    penalised=penalised,
                    optimizer=OPTIMIZERS[optimizer],
                    show_progress=False,
                )
                for name, (activation, penalised) in VARIANTS.items()
            }
            rows += [_row(optimizer, seed, name, networks) for name in networks]
            arguments.output.write_text(json.dumps(rows, indent=1))
        print(f"\n{optimizer}\n\n{_table([row for row in rows if row['optimizer'] == optimizer])}", flush=True)


def _row(optimizer: str, seed: int, name: str, networks: dict[str, Measured]) -> dict[str, Any]:
    network, plain = networks[name], networks["plain (ReLU)"]
    return {
        "optimizer": optimizer,
        "seed": seed,
        "variant": name,
        "clean accuracy": network.attack.clean_accuracy,
        "attack ARA": network.attack.area,
        "attack ratio": compare(network.attack, plain.attack).ratio,
        "BTR ARA": network.btr.area,
        "BTR ratio": compare(network.btr, plain.btr).ratio,
        "training seconds": network.training_seconds,
        "not found": network.attack.not_found + network.btr.not_found,
    }


def _table(rows: list[dict[str, Any]]) -> str:
    columns = ["clean accuracy", "attack ARA", "attack ratio", "BTR ARA", "BTR ratio", "training seconds"]
    digits = [3, 4, 2, 4, 2, 0]
    lines = ["| | " + " | ".join(columns) + " |", "| --- " * (len(columns) + 1) + "|"]
    for name in VARIANTS:
        cells = []
        for column, places in zip(columns, digits, strict=True):
            values = [row[column] for row in rows if row["variant"] == name]
            low, high = (f"{bound:.{places}f}" for bound in (min(values), max(values)))
            cells.append(f"{statistics.median(values):.{places}f} ({low} to {high})")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, f"Images not found in all of it: {sum(row['not found'] for row in rows)}."])


if __name__ == "__main__":
    main()
