"""Peak memory does not grow with the number of images: only what is asked for is read, and only scalars are kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peak memory is read from Linux's /proc"),
]

SCRIPT = """
import sys
from pathlib import Path
import captum_lipschitz.measure.run as run
from captum_lipschitz.cli import main

def tell():
    # The peak so far, of this program alone; getrusage counts what started it as well.
    lines = Path("/proc/self/status").read_text().splitlines()
    print("PEAK", next(line.split()[1] for line in lines if line.startswith("VmHWM")))

def telling(function):
    def told(*arguments, **others):
        answer = function(*arguments, **others)
        tell()
        return answer
    return told

run._measured = telling(run._measured)
run.summarise = telling(run.summarise)
for data in sys.argv[1:]:
    tell()
    status = main(["ara", "--model", "flat:network", "--data", data, "--output", data + ".out", "--device", "cpu",
                   "--effort", "fast", "--doubts", "off", "--chunk-size", "64"])
    assert status == 0, status
"""


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_many_times_the_images_need_no_more(tmp_path: Path, save: object) -> None:
    (tmp_path / "flat.py").write_text(
        "import torch\ndef network():\n    torch.manual_seed(0)\n"
        "    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 96 * 96, 40))\n"
    )
    # The same 64 images again and again, so that every chunk is the same work.
    chunk = np.random.default_rng(0).integers(0, 256, (64, 3, 96, 96), dtype=np.uint8)
    for name, times in (("few.npz", 4), ("many.npz", 48)):
        images, labels = np.tile(chunk, (times, 1, 1, 1)), np.arange(64 * times) % 64 % 40
        save(tmp_path / name, images=images, labels=labels)  # type: ignore[operator]
    # By default glibc keeps freed blocks of growing size for itself, now more and now less (up to 80 MiB here);
    # with a fixed threshold what is freed goes back, and the peak is that of what was held.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "131072"}
    command = [sys.executable, "-c", SCRIPT, "few.npz", "many.npz"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    peaks = [int(line.split()[1]) / 1024 for line in done.stdout.splitlines() if "PEAK" in line]
    assert len(peaks) == 1 + 5 + 1 + 49
    before, *peaks = peaks[6:]
    # In one process: two that do the same differ by up to 9 MiB, and what the first run imports is 79 to 84 MiB.
    # The first run's figure leaves 35 to 42 MiB that were not there when its last chunk was measured. With all images
    # of the second archive in memory the difference was 113 MiB as bytes, 354 to 358 MiB as floats.
    assert peaks[3] - before < 50, (before, *peaks)
    assert peaks[-1] - peaks[3] < 4, peaks
