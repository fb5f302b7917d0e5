"""What every test here has in common."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before transformers is imported: nothing here asks the hub for anything

import pytest


@pytest.fixture(autouse=True)
def _nothing_is_written_into_the_project(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
