"""What cannot be evaluated is refused, in words that say what to do."""

import math

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from models import BOX, IMAGES, LABELS, ROWS
from test_evaluator import CONFIG, FRAME, evaluate

from captum_lipschitz import MinimumNormAttack
from captum_lipschitz.errors import CaptumLipschitzError, InvalidInputError, InvalidTypeError, UnknownNameError
from captum_lipschitz_mlflow.network import network_of
from captum_lipschitz_mlflow.settings import NAMES, Settings


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        (
            {"max_image": 3},
            InvalidTypeError,
            r"evaluator_config: expected any of \['bounds', .*'name'\], got \['max_im",
        ),
        ({"max_images": 0}, InvalidInputError, "max_images: expected a whole number of at least 1, or None, got 0"),
        ({"batch_size": 2.0}, InvalidInputError, "batch_size: expected a whole number .* got 2.0"),
        ({"batch_size": True}, InvalidInputError, "batch_size: expected a whole number .* got True"),
        ({"explanations": -1}, InvalidInputError, "explanations: expected a whole number of at least 0"),
        ({"bounds": 1}, InvalidInputError, r"bounds: expected \[low, high\] or None, got 1"),
        ({"input_shape": [3, 0]}, InvalidInputError, r"input_shape: expected positive sizes.* got \[3, 0\]"),
        ({"input_shape": []}, InvalidInputError, "input_shape: expected positive sizes"),
        ({"attack": MinimumNormAttack()}, InvalidTypeError, r"attack: expected a name.*log_ara\(result\)"),
        ({"norm": None}, InvalidTypeError, "norm: expected a name, got NoneType"),
        ({"attack_settings": [1]}, InvalidTypeError, r"attack_settings: expected a mapping, got \[1\]"),
        ({"attack_settings": {"steps": 2}}, InvalidInputError, "attack: expected a name beside attack_settings"),
        ({"scale": np.ones(3)}, InvalidTypeError, "expected JSON's types"),
        ({"chance": math.nan}, InvalidTypeError, "expected JSON's types"),
        ({"name": "a/b"}, InvalidInputError, "name: expected a short text of letters, .* got 'a/b'"),
        ({"name": "..a"}, InvalidInputError, "name: expected .* got '..a'"),
        ({"name": "a\n"}, InvalidInputError, "name: expected"),
        ({"name": "a" * 231}, InvalidInputError, "name: expected"),
        ({"name": 3}, InvalidInputError, "name: expected .* got 3"),
        ({"rho": True}, InvalidInputError, "rho: expected a positive number or None, got True"),
        ({"seed": 2**64}, InvalidInputError, "seed: expected a whole number of 64 bits or None, got 1844"),
        ({"seed": 1.0}, InvalidInputError, "seed: expected a whole number"),
        ({"bounds": [0, True]}, InvalidInputError, r"bounds: expected \[low, high\] or None"),
        ({"class_names": {"a": "cat"}}, InvalidInputError, "class_names: expected a list of texts"),
        ({"class_names": {"0": 1}}, InvalidInputError, "class_names: expected a list of texts"),
    ],
)
def test_settings(config, error, message):
    with pytest.raises(error, match=message):
        Settings.of(config)


def test_names_are_those_of_the_library_where_it_has_them():
    assert {"bounds", "criterion", "chance", "norm", "scale", "doubts", "show_progress", "attack"} <= set(NAMES)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"attack": "nothing"}, UnknownNameError, "attack: expected one of .*'minimum_norm'.* got 'nothing'"),
        ({"norm": "l7"}, InvalidInputError, "norm: expected one of"),
        ({"criterion": "wrong"}, CaptumLipschitzError, "criterion"),
        ({"bounds": [0, 0.5]}, InvalidInputError, "bounds"),
        ({"input_shape": [3, 8, 9]}, InvalidInputError, r"rows of 216 numbers.*got \(192,\); set input_shape"),
        ({"input_shape": [192]}, Exception, ""),
        ({"input_shape": [12, 4, 4], "explanations": 2}, InvalidInputError, "explanations: expected images of shape"),
    ],
)
def test_settings_that_do_not_fit(logged, settings, error, message):
    with pytest.raises(error, match=message):
        evaluate(logged("pickled"), config={**CONFIG, **settings})


def test_rows_without_a_shape(logged):
    message = r"data: expected inputs that the network takes, got ones of shape \(192,\).*set input_shape in evaluator_"
    with pytest.raises(InvalidInputError, match=message):
        evaluate(logged("without signature"))


def test_a_network_exported_for_batches_of_one(logged):
    message = "model: expected a network exported for batches of any size.*input_example of at least two images"
    with pytest.raises(InvalidInputError, match=message):
        evaluate(logged("exported for one"))


@pytest.mark.parametrize(
    ("data", "targets", "message"),
    [
        ((ROWS * 255).astype(np.uint8), LABELS, "data: expected floating point values.*uint8; convert"),
        (ROWS, np.array(["cat"] * len(ROWS)), "targets: expected the classes' numbers 0..C-1, got <U3, as"),
        (ROWS, LABELS + 0.5, "targets: expected the classes' numbers"),
        (ROWS, LABELS - 1, "labels: expected classes in 0"),
        (ROWS, LABELS + 7, "labels: expected classes in 0"),
        (FRAME.assign(image=["a file.png"] * len(FRAME)), "label", "data: expected columns of numbers, or a single"),
        (FRAME.assign(image=[*IMAGES[:-1], IMAGES[0, :1]]), "label", "data: expected columns of numbers, or a single"),
        (pd.DataFrame(ROWS).assign(other="text", label=LABELS), "label", "data: expected columns of numbers"),
        (np.where(ROWS > 0.99, np.nan, ROWS), LABELS, "images: expected finite values"),
    ],
)
def test_data(logged, data, targets, message):
    with pytest.raises(CaptumLipschitzError, match=message):
        evaluate(logged("pickled"), data, targets)


def test_mlflow_itself_refuses_images_that_are_not_flat(logged):
    with pytest.raises(MlflowException, match="2-dimensional"):
        evaluate(logged("pickled"), IMAGES)


@pytest.mark.parametrize(
    ("model", "came"), [("python", "a model of mlflow.pyfunc"), (None, "no model"), (len, "a function")]
)
def test_models_without_a_torch_module(logged, model, came):
    uri = logged(model) if isinstance(model, str) else model
    data = pd.DataFrame({"p": LABELS, "t": LABELS}) if model is None else ROWS
    others = {"predictions": "p", "targets": "t"} if model is None else {}
    with pytest.raises(InvalidTypeError, match=rf"flavor mlflow.pytorch.*got {came}.*measure_ara\(module"):
        evaluate(uri, data, **others)


def test_a_module_is_a_function_to_mlflow():
    with pytest.raises(InvalidTypeError, match=r"got a function.*log the network with mlflow.pytorch.log_model"):
        evaluate(torch.nn.Linear(192, 3))


def test_a_network_exported_in_training_mode(logged):
    with pytest.raises(InvalidInputError, match=r"\['batch_norm', 'dropout'\] in training mode; call model.eval\(\)"):
        evaluate(logged("exported in training"))


def test_other_kinds_of_model(logged):
    with pytest.raises(InvalidInputError, match="model_type: expected 'classifier', got 'regressor'"):
        evaluate(logged("pickled"), model_type="regressor")


def test_a_refusal_ends_the_run_as_failed(logged):
    with pytest.raises(InvalidTypeError):
        evaluate(logged("pickled"), config={"nothing": 1})
    assert mlflow.active_run() is None
    assert mlflow.last_active_run().info.status == "FAILED"


def test_no_model():
    with pytest.raises(InvalidTypeError, match="got no model"):
        network_of(None)
    assert BOX["bounds"] == [0, 1]
