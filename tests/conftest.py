"""Shared fixtures: thread count, the authors' networks and CIFAR-10 where the shared data is present."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, Phase, settings
from torch import Tensor

from captum_lipschitz.models import PreActResNet44

_EXAMPLES = 20
settings.register_profile(
    "default", deadline=None, max_examples=_EXAMPLES, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)
# Chosen by CAPTUM_LIPSCHITZ_HYPOTHESIS: "long" has ten times the examples, other ones in every run; "quick" has half as
# many, and makes none smaller that failed, which is enough where only failing counts (benchmarks/mutants.py).
settings.register_profile(
    "long", settings.get_profile("default"), max_examples=10 * _EXAMPLES, derandomize=False, print_blob=True
)
settings.register_profile(
    "quick", settings.get_profile("default"), max_examples=_EXAMPLES // 2, phases=[Phase.explicit, Phase.generate]
)
settings.load_profile(os.environ.get("CAPTUM_LIPSCHITZ_HYPOTHESIS", "default"))
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whole runs take minutes, and are asked for: .ci/hosts does."""
    if os.environ.get("CAPTUM_LIPSCHITZ_WHOLE_RUNS", "0") in ("", "0"):
        for item in items:
            if item.get_closest_marker("whole_run") is not None:
                item.add_marker(pytest.mark.skip(reason="takes minutes: set CAPTUM_LIPSCHITZ_WHOLE_RUNS=1"))


DATA = Path(os.environ.get("CAPTUM_LIPSCHITZ_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The real data, which is not part of the project."""
    if not DATA.is_dir():
        pytest.skip("real data absent: set CAPTUM_LIPSCHITZ_DATA to the folder that holds cifar10_subset.npz")
    return DATA


@pytest.fixture(scope="session")
def cifar10_test(data_folder: Path) -> tuple[Tensor, Tensor]:
    """Real CIFAR-10 test images, (1017, 3, 32, 32) in [0, 1], and labels."""
    with np.load(data_folder / "cifar10_subset.npz") as arrays:
        return torch.from_numpy(arrays["test_images"]) / 255, torch.from_numpy(arrays["test_labels"]).long()


@pytest.fixture(scope="session")
def robust_network(data_folder: Path) -> PreActResNet44:
    """The authors' network trained with their regularizer."""
    return PreActResNet44.from_safetensors(data_folder / "authors-cifar10" / "resnet44-robust.safetensors")


@pytest.fixture(scope="session")
def standard_network(data_folder: Path) -> PreActResNet44:
    """The authors' plainly trained network."""
    return PreActResNet44.from_safetensors(data_folder / "authors-cifar10" / "resnet44-standard.safetensors")


@pytest.fixture(scope="session")
def published_distances(data_folder: Path) -> dict[str, Tensor]:
    """What the authors' own 450-step search finds for the robust network on the first 64 test images."""
    text = (data_folder / "authors-cifar10" / "distances-robust-64.json").read_text()
    return {name: torch.tensor(values) for name, values in json.loads(text).items()}
