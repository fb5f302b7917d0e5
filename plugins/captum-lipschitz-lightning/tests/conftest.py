"""What every test here has in common."""

import pytest

from captum_lipschitz_lightning.configuration import VARIABLE


@pytest.fixture(autouse=True)
def _nothing_asked_for(monkeypatch, tmp_path):
    """No environment variable and no file of the developer's own; Lightning writes nothing into the project."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
