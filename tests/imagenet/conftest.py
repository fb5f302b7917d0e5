"""The scripts' package, importable as when a script is run, and a small folder of images."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from image_folders import IMAGENET, write_images

pytest.importorskip("torchvision", reason="torchvision is not installed: pip install 'captum-lipschitz[imagenet]'")
pytest.importorskip("yaml", reason="PyYAML is not installed: pip install 'captum-lipschitz[imagenet]'")
sys.path.insert(0, str(IMAGENET))


@pytest.fixture(scope="session")
def pictures_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``train`` with 8 images for each of three classes, ``val`` with 5."""
    folder = tmp_path_factory.mktemp("pictures")
    write_images(folder / "train", each=8)
    write_images(folder / "val", each=5)
    return folder
