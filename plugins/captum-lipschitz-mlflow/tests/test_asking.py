"""MLflow asks every installed evaluator: this one answers only to who asked for it, and costs nothing before."""

import subprocess
import sys
from importlib import metadata

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import list_evaluators
from models import BOX, LABELS, ROWS
from test_evaluator import evaluate

from captum_lipschitz_mlflow import AraEvaluator

ENTRY_POINTS = [
    point for point in metadata.entry_points(group="mlflow.model_evaluator") if point.name == "captum_lipschitz"
]
installed = pytest.mark.skipif(not ENTRY_POINTS, reason="needs the installed distribution, for its entry point")


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


@installed
def test_mlflow_finds_it():
    assert "captum_lipschitz" in list_evaluators()
    assert ENTRY_POINTS[0].load() is AraEvaluator


@installed
def test_being_asked_imports_nothing_heavy():
    loaded = run_python(
        "import sys, mlflow.models.evaluation.evaluator_registry as r\n"
        "before = {'torch', 'captum'} & set(sys.modules)\n"
        "evaluator = r._model_evaluation_registry.get_evaluator('captum_lipschitz')\n"
        "assert not evaluator.can_evaluate(model_type='classifier', evaluator_config={})\n"
        "print(before, {'torch', 'captum'} & set(sys.modules), 'captum_lipschitz' in sys.modules)"
    )
    assert loaded == "set() set() False\n"


@pytest.mark.parametrize(
    "config", [None, {}, {"captum_lipschitz": {}}, {"metric_prefix": "val_"}, {"default": {"metric_prefix": "val_"}}]
)
def test_who_did_not_ask_is_left_alone(config):
    from mlflow.models.evaluation.base import resolve_evaluators_and_configs

    names = [bundle.name for bundle in resolve_evaluators_and_configs(None, config, "classifier")]
    assert "captum_lipschitz" not in names
    assert names


@pytest.mark.parametrize("config", [{"bounds": [0, 1]}, {"bounds": None}, {"captum_lipschitz": {"bounds": [0, 1]}}])
def test_settings_ask_for_it(config):
    from mlflow.models.evaluation.base import resolve_evaluators_and_configs

    names = [bundle.name for bundle in resolve_evaluators_and_configs(None, config, "classifier")]
    assert "captum_lipschitz" in names
    assert "captum_lipschitz" not in [b.name for b in resolve_evaluators_and_configs(None, config, "regressor")]


def test_a_name_asks_for_it_without_settings(logged):
    assert evaluate(logged("tabular"), ROWS[:, :4], LABELS, config=None).metrics["ara_images"] == len(ROWS)


def test_a_name_in_a_list(logged):
    config = {"captum_lipschitz": {**BOX, "explanations": 0, "max_images": 5}}
    result = evaluate(logged("pickled"), config=config, evaluators=["captum_lipschitz"])
    assert result.metrics["ara_images"] == 5


def test_an_evaluation_that_names_nobody_is_the_default_one_s_alone():
    frame = mlflow.data.from_pandas(pd.DataFrame({"p": LABELS, "t": LABELS}), predictions="p", targets="t")
    result = mlflow.models.evaluate(data=frame, model_type="classifier")
    assert result.metrics["accuracy_score"] == 1.0
    assert not [name for name in result.metrics if name.startswith("ara")]


def test_beside_the_default_evaluator_it_is_that_one_that_fails_on_images_and_logits(logged):
    from mlflow.models.evaluation.base import _get_last_failed_evaluator

    with pytest.raises(MlflowException):
        evaluate(
            logged("pickled"),
            config={"captum_lipschitz": BOX, "default": {"log_model_explainability": False}},
            evaluators=["captum_lipschitz", "default"],
        )
    assert _get_last_failed_evaluator() == "classifier"
    assert mlflow.last_active_run().data.metrics["ara_images"] == len(ROWS)
