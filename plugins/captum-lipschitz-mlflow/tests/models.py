"""Small networks, images and the ways to log them."""

import inspect

import mlflow
import mlflow.pyfunc
import numpy as np
import pytest
import torch
from mlflow.models import infer_signature
from torch import nn

IMAGES = np.random.default_rng(0).random((24, 3, 8, 8), dtype=np.float32)
ROWS = IMAGES.reshape(len(IMAGES), -1)
BOX = {"bounds": [0, 1], "doubts": "off"}


def network():
    """BatchNorm and dropout, so that the mode shows."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(144, 3)
        ).eval()


def flat_network():
    return nn.Sequential(nn.Unflatten(1, (3, 8, 8)), network()).eval()


def _labels():
    labels = network()(torch.tensor(IMAGES)).argmax(1).numpy()
    labels[-4:] = (labels[-4:] + 1) % 3  # some are misclassified
    return labels


LABELS = _labels()


def log(model, images=IMAGES, *, signature=True, serialization="pickle", example=2):
    settings = {"signature": infer_signature(images, np.zeros((len(images), 3), np.float32))} if signature else {}
    takes = inspect.signature(mlflow.pytorch.log_model).parameters
    if serialization == "pt2" and not {"serialization_format", "export_model"} & set(takes):
        pytest.skip("this release of MLflow exports no graphs")
    if "serialization_format" in takes:
        settings["serialization_format"] = serialization
    elif serialization == "pt2":
        settings["export_model"] = True
    if serialization == "pt2":
        settings["input_example"] = images[:example]
    return mlflow.pytorch.log_model(model, name="net", pip_requirements=["torch"], **settings).model_uri


class Doubled(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return 2 * model_input


CASES = {
    "pickled": lambda: log(network()),
    "exported": lambda: log(network(), serialization="pt2"),
    "exported in training": lambda: log(network().train(), serialization="pt2"),
    "exported for one": lambda: log(network(), serialization="pt2", example=1),
    "without signature": lambda: log(network(), signature=False),
    "flat": lambda: log(flat_network(), images=ROWS),
    "tabular": lambda: log(nn.Linear(4, 3).eval(), images=ROWS[:, :4]),
    "python": lambda: (
        mlflow.pyfunc.log_model(name="doubled", python_model=Doubled(), pip_requirements=["torch"]).model_uri
    ),
}
