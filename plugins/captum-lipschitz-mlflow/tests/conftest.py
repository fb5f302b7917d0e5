"""What every test here has in common: a store of its own, no telemetry, and models logged once for all of them."""

import os

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", MLFLOW_ALLOW_PICKLE_DESERIALIZATION="true")

import mlflow
import pytest
from hypothesis import settings
from models import CASES

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")


@pytest.fixture(scope="session", autouse=True)
def _store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("store")
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(f"sqlite:///{folder / 'runs.db'}")
    mlflow.create_experiment("tests", artifact_location=(folder / "artifacts").as_uri())
    mlflow.set_experiment("tests")
    yield
    mlflow.set_tracking_uri(before)


@pytest.fixture(autouse=True)
def _elsewhere(monkeypatch, tmp_path):
    """Nothing is written into the project, and no run is left active."""
    monkeypatch.chdir(tmp_path)
    yield
    while mlflow.active_run() is not None:
        mlflow.end_run()


@pytest.fixture(scope="session")
def logged(_store):
    """URIs of real logged models, by name; each is logged when it is first asked for."""
    uris = {}

    def uri(name):
        if name not in uris:
            with mlflow.start_run(nested=True):
                uris[name] = CASES[name]()
        return uris[name]

    return uri
