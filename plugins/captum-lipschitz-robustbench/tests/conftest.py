"""RobustBench made importable first, as a user does; real data where they are."""

import os
from pathlib import Path

import pytest

from captum_lipschitz_robustbench import provide_autoattack

provide_autoattack()

DATA = Path(os.environ.get("CAPTUM_LIPSCHITZ_DATA", Path(__file__).resolve().parents[4] / "shared" / "data"))


@pytest.fixture
def cifar10():
    """The first CIFAR-10 test images, (8, 3, 32, 32) in [0, 1], and labels."""
    import numpy as np
    import torch

    path = DATA / "cifar10_subset.npz"
    if not path.exists():
        pytest.skip(f"no {path.name}")
    with np.load(path) as arrays:
        images, labels = arrays["test_images"][:8], arrays["test_labels"][:8]
    return torch.tensor(images) / 255, torch.tensor(labels.astype("int64"))
