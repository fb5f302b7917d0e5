"""Recipes of examples/imagenet: YAML that would fill memory, run code or mean two things is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from hostile import ENDLESS, damaged, endless, within
from image_folders import IMAGENET

from captum_lipschitz.errors import InvalidInputError

pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'captum-lipschitz[imagenet]'")
pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'captum-lipschitz[imagenet]'")
sys.path.insert(0, str(IMAGENET))

from imagenet_training.recipe import Recipe, read_recipe
from imagenet_training.trained import read_run

LAUGHS = "a0: &a0 [ha, ha]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
MERGES = "a0: &a0 {b: 1}\n" + "".join(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}\n" for i in range(1, 60))
HOSTILE = {
    "laughs": f"{LAUGHS}model: *a59\n",
    "merges": f"{MERGES}model: resnet18\n",
    "code": "model: !!python/object/apply:os.mkdir [made]\n",
    "name": "model: !!python/name:os.system\n",
    "depth": "model: " + "[" * 20_000,
    "long": "model: " + "a" * 100_000,
    "twice": "model: resnet18\nmodel: resnet50\n",
    "digits": "model: resnet18\nepochs: " + "9" * 10_000 + "\n",
    "endless epochs": "model: resnet18\nepochs: .inf\n",
    "endless rate": "model: resnet18\nlearning_rate: .inf\n",
    "no rate": "model: resnet18\nlearning_rate: .nan\n",
    "date": "model: 2001-99-99\n",
    "list": "- resnet18\n",
    "text": "resnet18",
    "nothing": "",
    "crop": "model: resnet18\ncrop_scale: [0.1]\n",
    "mean": "model: resnet18\nmean: []\n",
    "std": "model: resnet18\nstd: [0, 1, 1]\n",
    "keys": "? [a, b]\n: c\nmodel: resnet18\n",
    "long key": "model: resnet18\n? " + "b" * 50_000 + "\n: 1\n",
    "escape": 'model: "\\x1b[2J"\nactivation: "\\x1b[2J"\n',
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_recipes_are_refused_in_brief(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "recipe.yaml"
    path.write_text(HOSTILE[name])
    with within(60), pytest.raises(InvalidInputError) as refused:
        read_recipe(path)
    assert len(str(refused.value)) < 2000
    assert not (tmp_path / "made").exists()


def test_damaged_recipes_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    for content in damaged((IMAGENET / "configs" / "resnet50_all.yaml").read_bytes(), each=8):
        path.write_bytes(content)
        try:
            with within(60):
                assert isinstance(read_recipe(path), Recipe)
        except InvalidInputError as error:
            assert len(str(error)) < 5000  # noqa: PT017 - or it was read


@ENDLESS
def test_what_is_no_file_is_not_waited_for(kind: str, tmp_path: Path) -> None:
    path = endless(tmp_path / "recipe.yaml", kind)
    with within(20), pytest.raises(InvalidInputError, match=r"config: .*recipe\.yaml cannot be read"):
        read_recipe(path)


@pytest.mark.parametrize(
    "content",
    [
        b"[]",
        b"{}",
        b"3",
        b'{"recipe": [], "classes": []}',
        b'{"recipe": {"model": "a"}, "classes": 3}',
        b"\xff",
        b"[" * 99_999,
    ],
    ids=range(7),
)
def test_folders_of_no_run_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes(content)
    with within(60), pytest.raises(InvalidInputError, match=r"run: |config: "):
        read_run(tmp_path)


def test_the_classes_of_a_run_are_names(tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_text(json.dumps({"recipe": {"model": "resnet18"}, "classes": [1, 2]}))
    with pytest.raises(InvalidInputError, match=r"run: expected the output folder of train\.py"):
        read_run(tmp_path)
