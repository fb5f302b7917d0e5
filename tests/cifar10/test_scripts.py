"""The commands as the README has them, on synthetic images."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from captum_lipschitz.models import PreActResNet44

_SMALL = ["--synthetic", "256", "--effort", "fast", "--images", "8", "--below-chance", "4"]


def _run(script: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(script), *map(str, arguments)], capture_output=True, text=True, check=False, timeout=300
    )


def test_reproduce_trains_measures_and_does_not_train_twice(cifar10_scripts: Path, tmp_path: Path) -> None:
    command = (cifar10_scripts / "reproduce.py", "robust", *_SMALL, "--output", tmp_path / "run", "--quiet",
               "--shortened", "--set", "epochs=2", "widths=[8,16]")  # fmt: skip
    first = _run(*command)
    assert first.returncode == 0, first.stderr
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["training"]["steps"] == 4
    assert len(results["figures"]["attack"]["distances"]) == 8
    assert "trained already" in _run(*command).stdout
    again = json.loads((tmp_path / "run" / "results.json").read_text())
    assert again == results
    other = _run(*command[:-1], "widths=[8,32]")
    assert other.returncode == 2
    assert "a folder of its own" in other.stderr
    chosen = _run(*command[:2], *_SMALL, *command[2 + len(_SMALL) :], "--measure-on", "held_out")
    assert "on held_out images" in chosen.stdout
    assert json.loads((tmp_path / "run" / "results.json").read_text()) == results


def test_reproduce_says_what_is_wrong(cifar10_scripts: Path, tmp_path: Path) -> None:
    for arguments in (
        ["--data", tmp_path],
        ["--synthetic", 64, "--set", "epoch=1"],
        ["--synthetic", 64, "--device", "nowhere"],
        ["--synthetic", 64, "--batch", 0],
        [],
    ):
        answer = _run(cifar10_scripts / "reproduce.py", "robust", "--output", tmp_path / "run", *arguments)
        assert answer.returncode == 2
        assert answer.stderr.startswith("reproduce.py: error:")
        assert "Traceback" not in answer.stderr


@pytest.mark.slow
def test_a_comparison_its_tables_and_pictures(cifar10_scripts: Path, tmp_path: Path) -> None:
    methods = ["plain", "robust", "adversarial"]
    output = tmp_path / "comparison"
    command = (cifar10_scripts / "compare.py", *_SMALL, "--output", output, "--shortened", "--seeds", 1,
               "--methods", *methods)  # fmt: skip
    answer = _run(*command)
    assert answer.returncode == 0, answer.stderr
    assert len(list(output.glob("*/*/seed-0/results.json"))) == 4 + 5 + 4
    table = (output / "comparison.md").read_text()
    assert len(re.findall(r"^\| (plain|penalty and half-Huber|adversarial training)", table, re.MULTILINE)) >= 13
    before = {path: path.stat().st_mtime_ns for path in output.glob("*/*/seed-0/*")}
    (output / "robust" / "1.4" / "seed-0" / "weights.safetensors").unlink()
    again = _run(*command, "--workers", 2)
    assert again.returncode == 0, again.stderr
    changed = {path.parent for path, written in before.items() if path.stat().st_mtime_ns != written}
    assert changed == {output / "robust" / "1.4" / "seed-0"}
    columns = [[line.split(" | ")[:6] for line in text.splitlines()] for text in (table, again.stdout)]
    assert all(row in columns[1] for row in columns[0])  # all but the seconds
    for arguments in (["--effort", "standard"], ["--synthetic", 128], ["--set"]):
        other = _run(*command, *arguments)
        assert other.returncode == 2
        assert "Traceback" not in other.stderr
    noise = np.random.default_rng(0).integers(0, 256, (400, 3, 32, 32), np.uint8)
    arrays = {f"{part}_images": noise for part in ("train", "test")}
    labels = np.arange(400) % 10
    np.savez(tmp_path / "cifar10_subset.npz", **arrays, train_labels=labels, test_labels=labels)
    drawn = _run(cifar10_scripts / "figures.py", output, "--output", tmp_path / "pictures", "--images", 2, "--data",
                 tmp_path)  # fmt: skip
    assert drawn.returncode == 0, drawn.stderr
    for name in ("accuracy-and-area.png", "robustness-curves.png", "explanations.png"):
        assert np.asarray(Image.open(tmp_path / "pictures" / name)).std() > 0


@pytest.mark.slow
def test_the_authors_networks_are_measured_once(cifar10_scripts: Path, tmp_path: Path) -> None:
    from cifar10_training.images import Part, synthetic_images

    images = synthetic_images(400, 0, 20)
    network = PreActResNet44.with_relu().eval()
    network.pipe[-1].bias.data.zero_()
    network.pipe[-1].weight.data *= 10  # an untrained network's logits are nearly the same
    labels = network(images.test.inputs()).argmax(1)  # all right, so that no distance is 0
    arrays = {"train": images.train, "test": Part(images.test.images, labels)}
    np.savez(
        tmp_path / "cifar10_subset.npz",
        **{f"{name}_images": part.images.numpy() for name, part in arrays.items()},
        **{f"{name}_labels": part.labels.numpy() for name, part in arrays.items()},
    )
    save_file(network.state_dict(), tmp_path / "resnet44-robust.safetensors")
    command = (cifar10_scripts / "authors.py", tmp_path, "--data", tmp_path, "--output", tmp_path / "authors",
               "--effort", "fast", "--images", 4, "--below-chance", 4, "--quiet")  # fmt: skip
    answer = _run(*command)
    assert answer.returncode == 0, answer.stderr
    assert "| robust | published, 1,000 images | 0.6758 | 0.0142 | 0.0395 |" in answer.stdout
    written = (tmp_path / "authors" / "robust.json").stat().st_mtime_ns
    figures = json.loads((tmp_path / "authors" / "robust.json").read_text())
    twice = {key: [2 * one for one in figures[name]["distances"]] for key, name in _CRITERIA.items()}
    (tmp_path / "distances-robust-64.json").write_text(json.dumps(twice))
    paired = _run(*command)
    assert (
        "| robust | ours over theirs, the same 4 images |  | 0.500 [0.500, 0.500] | 0.500 [0.500, 0.500] |"
        in paired.stdout
    )
    assert (tmp_path / "authors" / "robust.json").stat().st_mtime_ns == written
    others = {"attack": [*twice["attack"][1:], 0.0], "btr": twice["btr"]}
    (tmp_path / "distances-robust-64.json").write_text(json.dumps(others))
    assert "of the same images" in _run(*command).stderr
    assert "measured otherwise" in _run(*command, "--below-chance", 1).stderr


_CRITERIA = {"attack": "attack", "btr": "below_chance"}
