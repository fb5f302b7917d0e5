"""Two processes: what they write is what they measured."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from image_folders import IMAGENET
from imagenet_training.pictures import Draw, Pictures
from imagenet_training.trained import read_run
from torch.nn import functional as F


@pytest.mark.parametrize("sharding", ["ddp", pytest.param("fsdp2", marks=pytest.mark.whole_run)])
def test_the_weights_that_are_written_are_those_of_the_results(
    sharding: str, pictures_folder: Path, tmp_path: Path
) -> None:
    changes = ["model=shufflenet_v2_x0_5", "weights=null", "learning_rate=0.0001", "resolution=64", "resize=64",
               "epochs=2", "batch_size=12", "precision=float32", f"sharding={sharding}"]  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command += [str(IMAGENET / "train.py"), "--config", str(IMAGENET / "configs" / "finetune.yaml"), "--set", *changes]
    command += ["--data", str(pictures_folder), "--output", str(tmp_path), "--workers", "0", "--threads", "1"]
    done = subprocess.run([*command, "--ara-images", "4"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

    run = read_run(tmp_path)
    pictures = Pictures(pictures_folder / "val", run.recipe, train=False)
    drawn = [pictures[Draw(i, 0)] for i in range(len(pictures))]
    inputs = torch.stack([image for image, _, _ in drawn]).float() / 255
    labels = torch.tensor([label for _, label, _ in drawn])
    with torch.no_grad():
        logits = run.network().eval()(inputs)
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["validation_loss"] == pytest.approx(float(F.cross_entropy(logits, labels)), rel=1e-4)
    assert results["validation_accuracy"] == pytest.approx(float((logits.argmax(1) == labels).float().mean()))
