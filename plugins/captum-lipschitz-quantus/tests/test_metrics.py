"""Quantus's own metrics, of every category, call the functions as they call ``quantus.explain``."""

import warnings

import numpy as np
import pytest
import quantus
import torch
from networks import batch, network, segments

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.plugin import components
from captum_lipschitz_quantus import explain_func, layer_explain_func

EXPLAIN = {
    "adversarial": explain_func("adversarial", n_steps=4),
    "adversarial, channels": explain_func("adversarial", n_steps=4, reduce=None),
    "contrastive": explain_func("contrastive", n_steps=4, reduce="abs-sum"),
    "minimal": explain_func("minimal", criterion="below_chance", effort="fast"),
    "layer": layer_explain_func("3", n_steps=4),
}
QUIET = {"disable_warnings": True, "display_progressbar": False}

METRICS = {
    "PixelFlipping": lambda: quantus.PixelFlipping(features_in_step=8, **QUIET),
    "FaithfulnessCorrelation": lambda: quantus.FaithfulnessCorrelation(
        nr_runs=5, subset_size=8, return_aggregate=False, **QUIET
    ),
    "Monotonicity": lambda: quantus.Monotonicity(features_in_step=16, **QUIET),
    "MaxSensitivity": lambda: quantus.MaxSensitivity(nr_samples=2, **QUIET),
    "AvgSensitivity": lambda: quantus.AvgSensitivity(nr_samples=2, **QUIET),
    "LocalLipschitzEstimate": lambda: quantus.LocalLipschitzEstimate(nr_samples=2, **QUIET),
    "RelativeInputStability": lambda: quantus.RelativeInputStability(
        nr_samples=2, return_nan_when_prediction_changes=False, **QUIET
    ),
    "Sparseness": lambda: quantus.Sparseness(**QUIET),
    "Complexity": lambda: quantus.Complexity(**QUIET),
    "NonSensitivity": lambda: quantus.NonSensitivity(**QUIET),
    "PointingGame": lambda: quantus.PointingGame(**QUIET),
    "AttributionLocalisation": lambda: quantus.AttributionLocalisation(**QUIET),
    "RelevanceRankAccuracy": lambda: quantus.RelevanceRankAccuracy(**QUIET),
    "RandomLogit": lambda: quantus.RandomLogit(num_classes=5, **QUIET),
}
ONE_CHANNEL = {
    "PointingGame",
    "AttributionLocalisation",
    "RelevanceRankAccuracy",
}  # they are of places, not of channels


@pytest.fixture(autouse=True)
def _seeded():
    np.random.seed(0)  # noqa: NPY002 (Quantus draws from the global state)


PAIRS = [(m, e) for m in METRICS for e in EXPLAIN if not (m in ONE_CHANNEL and "channels" in e)]


@pytest.mark.parametrize(("name", "explainer"), PAIRS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning")
def test_metric(name, explainer):
    model = network()
    images, labels = batch(model)
    call = {"s_batch": segments(), "explain_func": EXPLAIN[explainer], "device": "cpu", "batch_size": 3}
    scores = METRICS[name]()(model, images, labels, **call)
    assert len(scores) == 4
    assert np.isfinite(np.array(scores, dtype=float)).all()
    assert not model.training


@pytest.mark.parametrize("explainer", ["adversarial", "contrastive", "layer"])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_randomised_models_are_explained_anew(explainer):
    model = network()
    images, labels = batch(model)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    metric = quantus.MPRT(return_average_correlation=False, **QUIET)
    scores = metric(model, images, labels, explain_func=EXPLAIN[explainer])
    assert list(scores) == ["original", "6", "3", "1", "0"]
    assert np.allclose(scores["original"], 1)
    assert np.mean(scores["6"]) < 0.9  # the layer's name is looked up in Quantus's copy, so its answer moves as well
    efficient = quantus.EfficientMPRT(**QUIET)(model, images, labels, explain_func=EXPLAIN[explainer])
    assert np.isfinite(efficient).all()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_what_abs_does_with_a_signed_change():
    model = network()
    images, labels = batch(model)
    explain = EXPLAIN["adversarial"]
    change = explain(model, images, labels)
    largest = np.abs(change).max()
    seen = []
    for switch in (False, True):
        metric = quantus.Sparseness(abs=switch, normalise=True, **QUIET)
        metric.explain_func, metric.explain_func_kwargs = explain, {}
        seen.append(metric.explain_batch(model, images, labels))
    assert np.allclose(seen[0], change / largest)
    assert np.allclose(seen[1], np.abs(change) / largest)


@pytest.mark.filterwarnings("ignore:.*zero everywhere")
def test_a_class_that_is_not_the_decision_has_nothing_to_lose():
    model = network()
    images, labels = batch(model)
    with pytest.raises(AssertionError, match="all equal to zero"):
        METRICS["RandomLogit"]()(model, images, labels, explain_func=explain_func("minimal"))
    scores = METRICS["RandomLogit"]()(
        model, images, (labels + 1) % 5, explain_func=explain_func("minimal", criterion="reaches"), a_batch=None
    )
    assert len(scores) == 4


@pytest.mark.parametrize("name", sorted(ONE_CHANNEL))
def test_localisation_is_of_one_channel(name):
    model = network()
    images, labels = batch(model)
    explain = EXPLAIN["adversarial, channels"]
    with pytest.raises((ValueError, IndexError), match=r"broadcast|out of bounds"):
        METRICS[name]()(model, images, labels, s_batch=segments(), explain_func=explain)


def test_the_mass_of_a_signed_change_is_no_share():
    model = network()
    images, labels = batch(model)
    call = {"s_batch": segments(), "explain_func": EXPLAIN["adversarial"]}
    signed = np.array(quantus.RelevanceMassAccuracy(**QUIET)(model, images, labels, **call))
    assert ((signed < 0) | (signed > 1)).any()
    for switch, reduce in ((True, "sum"), (False, "abs-sum")):
        call["explain_func"] = explain_func("adversarial", n_steps=4, reduce=reduce)
        share = np.array(quantus.RelevanceMassAccuracy(abs=switch, **QUIET)(model, images, labels, **call))
        assert ((share > 0) & (share < 1)).all()


def test_one_table_with_captums_methods():
    model = network()
    images, labels = batch(model)
    ours = {component.name: explain_func(component.name) for component in components("attribution")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        table = quantus.evaluate(
            metrics={"Complexity": METRICS["Complexity"](), "MaxSensitivity": METRICS["MaxSensitivity"]()},
            xai_methods={"Saliency": quantus.explain, "InputXGradient": quantus.explain, **ours},
            model=model,
            x_batch=images,
            y_batch=labels,
            agg_func=np.mean,
            explain_func_kwargs={},
            return_as_df=True,
        )
    assert list(table.columns) == ["Saliency", "InputXGradient", *ours]
    assert np.isfinite(table.to_numpy(dtype=float)).all()
    alone = np.mean(METRICS["Complexity"]()(model, images, labels, explain_func=ours["adversarial"]))
    assert table.loc["Complexity", "adversarial"] == pytest.approx(alone, abs=0)


def test_settings_that_a_row_of_the_table_leaves_behind_are_refused():
    model = network()
    images, labels = batch(model)
    rows = {"Saliency": {"method": "Saliency", "xai_lib": "captum"}, "adversarial": EXPLAIN["adversarial"]}
    with pytest.raises(InvalidInputError, match=r"\['xai_lib'\].*a row that is a dict leaves its settings"):
        quantus.evaluate({"Sparseness": METRICS["Sparseness"]()}, rows, model, images, labels)
