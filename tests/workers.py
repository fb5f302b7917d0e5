"""What the processes of a distributed test run; in a file of its own, as each of them imports it."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Rows = list[dict[str, Tensor]]
"""The updates of one process."""


def gather(rank: int, rendezvous: str, output: str, scenarios: list[tuple[dict[str, Any], list[Rows]]]) -> None:
    """Give each scenario's metric this process's updates and save what it computes, with the warnings' texts."""
    from captum_lipschitz import AccuracyRobustnessArea

    torch.set_num_threads(1)
    processes = len(scenarios[0][1])
    torch.distributed.init_process_group("gloo", f"file://{rendezvous}", rank=rank, world_size=processes)
    answers = []
    for settings, updates in scenarios:
        metric = AccuracyRobustnessArea(**settings)
        for rows in updates[rank]:
            metric.update(**rows)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            area = metric.compute()
            result = metric.result()
        answers.append(
            {
                "area": area,
                "interval": result.interval,
                "distances": result.distances,
                "labels": result.labels,
                "macro_area": result.macro_area if len(result.labels.unique()) > 1 else None,
                "warnings": [str(warning.message) for warning in caught],
                "own_updates": len(metric.distances),
            }
        )
    torch.save(answers, Path(output) / f"{rank}.pt")
    torch.distributed.destroy_process_group()
