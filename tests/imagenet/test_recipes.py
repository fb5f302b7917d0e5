"""Recipes: read, refused, and each of configs/ started."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from image_folders import IMAGENET
from imagenet_training.recipe import Recipe, as_entries, read_recipe, recipe_of
from imagenet_training.run import Run, start

from captum_lipschitz.errors import InvalidInputError

CONFIGS = sorted((IMAGENET / "configs").glob("*.yaml"))
SMALL = ["batch_size=8", "resolution=64", "resize=64", "precision=float32", "epochs=2", "warmup_epochs=0.5"]


def test_there_are_the_recipes_that_the_page_speaks_of() -> None:
    named = {path.stem for path in CONFIGS}
    assert named >= {
        "resnet50_plain",
        "resnet50_robust",
        "resnet50_all",
        "resnet18_robust",
        "vit_b_16_robust",
        "finetune",
    }


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_each_recipe_starts_and_takes_two_steps(path: Path, tmp_path: Path) -> None:
    recipe = read_recipe(path, [*SMALL, "learning_rate=0.01"])
    run = Run(
        output=tmp_path, synthetic=24, classes=5, workers=0, threads=1, log_every=1, stop_after=2, ara_images=0, keep=1
    )
    assert start(recipe, run) == 0
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2]
    assert all(0 < line["loss"] < 50 for line in lines)
    # At the first step a ViT's last layer is zero, and the penalty with it.
    assert (lines[-1]["penalty"] > 0) == (recipe.target_loss is not None)
    assert [folder.name for folder in (tmp_path / "checkpoints").iterdir()] == ["step-00000002"]


def test_a_recipe_survives_json() -> None:
    for path in CONFIGS:
        recipe = read_recipe(path)
        assert recipe_of(json.loads(json.dumps(as_entries(recipe)))) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("modle: resnet18", "got 'modle'; did you mean 'model'"),
        ("epochs: 3", "expected an entry 'model'"),
        ("model: resnet18\nepochs: 2.5", "epochs: expected int, got 2.5"),
        ("model: resnet18\nepochs: true", "epochs: expected int, got True"),
        ("model: resnet18\nlearning_rate: fast", "learning_rate: expected float, got 'fast'"),
        ("model: resnet18\nprecision: fp16", r"precision: expected one of \['bf16', 'float32'\]"),
        ("model: resnet18\nresolution: 300", "resize: expected at least the resolution 300"),
        ("model: resnet18\ncrop_scale: [0.5, 0.1]", "crop_scale: expected two shares"),
        ("model: resnet18\nadversarial: 0.5\nmixup: 0.2", "adversarial: expected no mixup"),
        ("model: resnet18\nepochs: 4\nwarmup_epochs: 4", "warmup_epochs: expected less than epochs"),
        ("- resnet18", "expected entries such as"),
        ("model: [", "cannot be read as YAML"),
    ],
)
def test_a_recipe_that_cannot_be_used_says_why(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text(text)
    with pytest.raises(InvalidInputError, match=words):
        read_recipe(tmp_path / "recipe.yaml")


def test_numbers_that_yaml_takes_for_text() -> None:
    recipe = recipe_of(
        {"model": "resnet18", "learning_rate": "1e-3", "epochs": 3.0, "warmup_epochs": 1, "clip_norm": 1}
    )
    assert recipe == Recipe(model="resnet18", learning_rate=1e-3, epochs=3, warmup_epochs=1.0, clip_norm=1.0)
    assert isinstance(recipe.epochs, int)


def test_the_trainer_leaves_no_trace_in_this_process(tmp_path: Path) -> None:
    import signal

    before = (signal.getsignal(signal.SIGTERM), torch.get_default_dtype(), torch.is_grad_enabled())
    run = Run(output=tmp_path, synthetic=4, classes=2, workers=0, threads=torch.get_num_threads(), ara_images=0)
    recipe = Recipe(
        model="resnet18",
        resolution=32,
        resize=32,
        epochs=1,
        warmup_epochs=0,
        batch_size=4,
        precision="float32",
        learning_rate=0.01,
    )
    assert start(recipe, run) == 0
    assert before == (signal.getsignal(signal.SIGTERM), torch.get_default_dtype(), torch.is_grad_enabled())
