"""The real ``mlflow.models.evaluate`` on real logged models: figures, files, thresholds."""

import json

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.models import MetricThreshold
from mlflow.models.evaluation import EvaluationResult
from mlflow.models.evaluation.validation import ModelValidationFailedException
from models import BOX, IMAGES, LABELS, ROWS, flat_network, network
from PIL import Image

from captum_lipschitz import MinimumNormAttack, PaperAttack, accuracy_robustness_area, create_attack
from captum_lipschitz_mlflow.record import curve_table, metrics_of

PAIR = torch.tensor(IMAGES), torch.tensor(LABELS)
CONFIG = {**BOX, "explanations": 0}
FRAME = pd.DataFrame({"image": list(IMAGES), "label": LABELS})


def evaluate(model, data=ROWS, targets=LABELS, config=CONFIG, evaluators="captum_lipschitz", **others):
    return mlflow.models.evaluate(
        model,
        data,
        targets=targets,
        model_type=others.pop("model_type", "classifier"),
        evaluators=evaluators,
        evaluator_config=config,
        **others,
    )


def direct(**settings):
    return accuracy_robustness_area(network(), PAIR, **{"bounds": (0, 1), "doubts": "off", **settings})


def test_everything_is_logged_and_is_the_library_s_to_the_bit(logged):
    expected = direct(doubts="quick")
    with mlflow.start_run() as run:
        result = evaluate(logged("pickled"), config={"bounds": [0, 1]})
    assert result.metrics == metrics_of(expected)
    assert mlflow.get_run(run.info.run_id).data.metrics == metrics_of(expected)
    folder = mlflow.artifacts.download_artifacts(run_id=run.info.run_id)
    names = {"ara.json", "ara_curve.csv", "ara_curve.png", "ara_explanations.png"}
    content = json.loads(open(f"{folder}/ara.json", encoding="utf-8").read())  # noqa: PTH123, SIM115
    assert {name: content[name] for name in expected.to_dict()} == expected.to_dict()
    assert content["settings"]["bounds"] == [0, 1]
    curve = pd.read_csv(f"{folder}/ara_curve.csv", float_precision="round_trip")
    pd.testing.assert_frame_equal(curve, curve_table(expected), check_exact=True)
    for name in ("ara_curve", "ara_explanations"):
        with Image.open(f"{folder}/{name}.png") as picture:
            shades = np.asarray(picture.convert("L"), dtype=float)
        assert min(shades.shape) > 300
        assert shades.std() > 5
    assert {artifact.uri.rpartition("/")[2] for artifact in result.artifacts.values()} == names


def test_metrics_belong_to_the_logged_model_and_the_data(logged):
    uri = logged("pickled")
    evaluate(uri, config={**CONFIG, "name": "of_model"})
    # As with MLflow's own evaluators they are there twice: MLflow logs what an evaluator returns, with the data's name.
    metrics = [m for m in mlflow.get_logged_model(uri.rpartition("/")[2]).metrics if m.key == "of_model"]
    assert {metric.value for metric in metrics} == {direct().area}
    assert any(metric.dataset_digest for metric in metrics)


@pytest.mark.parametrize("name", ["exported", "without signature", "flat"])
def test_other_models_give_the_same(logged, name):
    shape = {"input_shape": [3, 8, 8]} if name == "without signature" else {}
    metrics = evaluate(logged(name), config={**CONFIG, **shape}).metrics
    model, images = (flat_network(), torch.tensor(ROWS)) if name == "flat" else (network(), PAIR[0])
    expected = metrics_of(accuracy_robustness_area(model, (images, PAIR[1]), bounds=(0, 1), doubts="off"))
    if name == "exported":  # its operations are others, in their last bits
        assert metrics == pytest.approx(expected, rel=1e-3)
    else:
        assert metrics == expected


@pytest.mark.parametrize(
    ("data", "targets"),
    [
        (FRAME, "label"),
        (FRAME.assign(image=[image.tolist() for image in IMAGES]), "label"),
        (pd.DataFrame(ROWS).assign(label=LABELS.astype(float)), "label"),
        (mlflow.data.from_pandas(FRAME, targets="label"), None),
        (mlflow.data.from_numpy(ROWS, targets=LABELS), None),
        (ROWS.astype(np.float64), LABELS),
    ],
    ids=["images", "lists", "columns", "pandas dataset", "numpy dataset", "double"],
)
def test_other_data_give_the_same(logged, data, targets):
    assert evaluate(logged("pickled"), data, targets).metrics == metrics_of(direct())


def test_a_loaded_model_is_left_as_it_was(logged):
    model = mlflow.pyfunc.load_model(logged("pickled"))
    inner = model.get_raw_model().train()
    before = {name: tensor.clone() for name, tensor in inner.state_dict().items()}
    assert evaluate(model).metrics["ara"] == direct().area
    assert all(module.training for module in inner.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in inner.state_dict().items())
    assert all(parameter.grad is None for parameter in inner.parameters())


@pytest.mark.parametrize(
    ("config", "settings"),
    [
        ({"criterion": "below_chance", "chance": "majority"}, {"criterion": "below_chance", "chance": "majority"}),
        ({"norm": "linf", "chance": 0.25}, {"norm": "linf", "chance": 0.25}),
        ({"scale": 2.0}, {"scale": 2.0}),
        ({"scale": 2.0, "attack": "minimum_norm"}, {"scale": 2.0}),
        ({"seed": 3}, {"generator": torch.Generator().manual_seed(3)}),
        (
            {"attack": "paper", "attack_settings": {"steps": 40}, "norm": "l2"},
            {"attack": PaperAttack(steps=40, norm="l2", bounds=(0, 1)), "norm": "l2"},
        ),
        (
            {"attack": "minimum_norm", "attack_settings": {"effort": "fast", "norm": "linf"}},
            {"attack": MinimumNormAttack(effort="fast", norm="linf", bounds=(0, 1))},
        ),
        ({"attack": "minimum_norm", "bounds": None}, {"attack": create_attack("minimum_norm"), "bounds": None}),
    ],
    ids=lambda value: str(sorted(value)),
)
def test_settings_mean_what_they_mean_in_the_library(logged, config, settings):
    metrics = evaluate(logged("pickled"), config={**CONFIG, **config}).metrics
    assert metrics == metrics_of(direct(**settings))


def test_the_first_images_in_batches(logged):
    metrics = evaluate(logged("pickled"), config={**CONFIG, "max_images": 10, "batch_size": 4}).metrics
    stream = [(PAIR[0][i : i + 4][: 10 - i], PAIR[1][i : i + 4][: 10 - i]) for i in (0, 4, 8)]
    expected = accuracy_robustness_area(network(), stream, bounds=(0, 1), doubts="off")
    assert metrics == metrics_of(expected)
    assert metrics["ara_images"] == 10


def test_several_measurements_in_one_run(logged):
    with mlflow.start_run() as run:
        evaluate(logged("pickled"), config={**CONFIG, "name": "ara_test"})
        evaluate(logged("pickled"), config={**CONFIG, "name": "btr", "criterion": "below_chance"})
    metrics = mlflow.get_run(run.info.run_id).data.metrics
    assert metrics["ara_test"] == direct().area
    assert metrics["btr"] == direct(criterion="below_chance").area


def test_thresholds_decide(logged):
    result = evaluate(logged("pickled"))
    area = direct().area

    def validate(value):
        threshold = MetricThreshold(threshold=value, greater_is_better=True)
        mlflow.validate_evaluation_results({"ara": threshold}, candidate_result=result)

    validate(area)
    with pytest.raises(ModelValidationFailedException, match="ara"):
        validate(area * 1.01)
    worse = EvaluationResult({**result.metrics, "ara": area / 2}, {})
    better = {"ara": MetricThreshold(min_relative_change=0.1, greater_is_better=True)}
    mlflow.validate_evaluation_results(better, candidate_result=result, baseline_result=worse)
    with pytest.raises(ModelValidationFailedException, match="ara"):
        mlflow.validate_evaluation_results(better, candidate_result=worse, baseline_result=result)


def test_a_result_is_saved_and_loaded_by_mlflow(logged, tmp_path):
    result = evaluate(logged("pickled"), config={**BOX, "explanations": 1})
    result.save(tmp_path)
    again = EvaluationResult.load(tmp_path)
    assert again.metrics == result.metrics
    pd.testing.assert_frame_equal(again.artifacts["ara_curve"].content, result.artifacts["ara_curve"].content)
    assert again.artifacts["ara"].content == result.artifacts["ara"].content
    assert again.artifacts["ara_explanations"].content.size == result.artifacts["ara_explanations"].content.size


def test_tables_have_no_picture(logged):
    frame = pd.DataFrame(ROWS[:, :4]).assign(label=LABELS)
    result = evaluate(logged("tabular"), frame, "label", config={"bounds": None, "doubts": "off"})
    assert sorted(result.artifacts) == ["ara", "ara_curve", "ara_curve_plot"]
