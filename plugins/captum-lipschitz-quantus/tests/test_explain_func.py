"""What comes back is the attribution itself, and nothing is left behind."""

import copy
import pickle
import warnings

import numpy as np
import pytest
import quantus
import torch
from captum.attr import LayerAttribution, Saliency
from networks import batch, network
from torch import nn

from captum_lipschitz import AdversarialAttribution, ContrastiveAdversarialAttribution, MinimalAdversarialAttribution
from captum_lipschitz.attr import LayerAdversarialAttribution
from captum_lipschitz.errors import (
    CaptumLipschitzError,
    CaptumLipschitzWarning,
    InvalidInputError,
    InvalidTypeError,
    UnknownNameError,
)
from captum_lipschitz.plugin import ComponentSpec, components
from captum_lipschitz_quantus import explain_func, layer_explain_func
from captum_lipschitz_quantus import inputs as by_name
from captum_lipschitz_quantus.arrays import _native

CLASSES = {
    "adversarial": (AdversarialAttribution, {"rho": 0.05, "n_steps": 5, "bounds": (0, 1)}),
    "contrastive": (ContrastiveAdversarialAttribution, {"rho": 0.2, "n_steps": 5, "norm": "l2", "baseline_target": 4}),
    "minimal": (MinimalAdversarialAttribution, {"effort": "fast", "bounds": (0, 1)}),
}


def direct(name, model, images, labels):
    kind, settings = CLASSES[name]
    return kind(model).attribute(torch.tensor(images), target=torch.tensor(labels), **settings)


def safe_labels(model, images, labels):
    """Never class 4, which is the contrast's baseline."""
    return np.where(labels == 4, 0, labels)


def test_every_builtin_attribution_is_tried_here():
    assert set(CLASSES) == {component.name for component in components("attribution") if ":" not in component.name}


@pytest.mark.parametrize("name", CLASSES)
@pytest.mark.filterwarnings("ignore:.*zero everywhere")
def test_the_answer_is_the_attribution(name):
    model = network()
    images, labels = batch(model)
    labels = safe_labels(model, images, labels)
    expected = direct(name, model, images, labels)
    settings = CLASSES[name][1]

    whole = explain_func(name, reduce=None, **settings)(model=model, inputs=images, targets=labels)
    assert type(whole) is np.ndarray
    assert whole.dtype == np.float32
    assert np.array_equal(whole, expected.numpy())
    assert (whole > 0).any()
    assert (whole < 0).any()

    summed = explain_func(name, **settings)(model, images, labels)
    assert np.array_equal(summed, expected.sum(1, keepdim=True).numpy())
    magnitude = explain_func(name, reduce="abs-sum", **settings)(model, images, labels)
    assert np.array_equal(magnitude, expected.abs().sum(1, keepdim=True).numpy())
    assert (magnitude >= np.abs(summed)).all()
    assert (magnitude > np.abs(summed)).any()


@pytest.mark.parametrize("reduce", ["sum", "abs-sum"])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_the_layers_answer_is_the_attribution_upsampled(reduce, mode):
    model = network()
    images, labels = batch(model)
    change = LayerAdversarialAttribution(model, model[3]).attribute(
        torch.tensor(images), target=torch.tensor(labels), rho=0.3, n_steps=4
    )
    change = change.abs() if reduce == "abs-sum" else change
    expected = LayerAttribution.interpolate(change.sum(1, keepdim=True), (8, 8), mode)
    explain = layer_explain_func("3", reduce=reduce, interpolate_mode=mode, rho=0.3, n_steps=4)
    found = explain(model, images, labels)
    assert found.shape == (4, 1, 8, 8)
    assert np.array_equal(found, expected.numpy())


def test_rows_of_features_stay_as_they_are():
    model = nn.Linear(6, 3)
    rows = np.random.default_rng(0).random((5, 6))
    found = explain_func("adversarial")(model, rows, np.array([0, 1, 2, 0, 1]))
    assert found.shape == (5, 6)


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8"])
def test_inputs_of_any_number_type_are_given_in_the_models(dtype):
    model = network()
    images = np.round(batch(model)[0] * 3).astype(dtype)
    expected = explain_func("adversarial", n_steps=3)(model, images.astype("float32"), 1)
    assert np.array_equal(explain_func("adversarial", n_steps=3)(model, images, 1), expected)


@pytest.mark.parametrize("dtype", [">f4", ">f8", ">f2", ">i4", "longdouble"])
def test_numbers_that_torch_does_not_take_are_made_native(dtype):
    model = network()
    images = np.round(batch(model)[0] * 3).astype(dtype)
    before = images.copy()
    found = explain_func("adversarial", n_steps=3)(model, images, 1)
    assert np.array_equal(found, explain_func("adversarial", n_steps=3)(model, images.astype("float32"), 1))
    assert images.dtype == np.dtype(dtype)
    assert np.array_equal(images, before)


def test_float32_is_not_widened_on_the_way():
    array = np.arange(6, dtype=">f4").reshape(2, 3)
    assert _native(array).dtype == np.dtype("float32")
    assert _native(array).dtype.isnative
    assert _native(array.astype(np.longdouble)).dtype == np.dtype("float64")
    assert np.array_equal(_native(array[:, ::-1]), array[:, ::-1])


def test_a_double_model_answers_in_double_precision():
    model = network().double()
    found = explain_func("adversarial", n_steps=3)(model, batch(network())[0], 1)
    assert found.dtype == np.float64


TWOS = [2, np.int64(2), np.array([2]), [2, 2, 2, 2], np.full(4, 2.0), torch.full((4,), 2), np.full(4, 2, ">i8")]


@pytest.mark.parametrize("targets", TWOS)
def test_classes_in_every_form(targets):
    model = network()
    images, _ = batch(model)
    explain = explain_func("adversarial", n_steps=3)
    assert np.array_equal(explain(model, images, targets), explain(model, images, np.array([2, 2, 2, 2])))


def test_tensors_and_turned_arrays_are_taken():
    model = network()
    images, labels = batch(model)
    explain = explain_func("adversarial", n_steps=3)
    expected = explain(model, images, labels)
    assert np.array_equal(explain(model, torch.tensor(images, requires_grad=True), torch.tensor(labels)), expected)
    turned = np.ascontiguousarray(images[..., ::-1])[..., ::-1]  # negative strides, as after an augmentation
    assert np.array_equal(explain(model, turned, labels, device="cpu", method="a row", softmax=None), expected)


def everything(model):
    return (
        [module.training for module in model.modules()],
        [(p.requires_grad, None if p.grad is None else p.grad.clone(), p.detach().clone()) for p in model.parameters()],
        [buffer.clone() for buffer in model.buffers()],
        torch.get_rng_state(),
    )


def same(a, b):
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return a == b


@pytest.mark.parametrize("explain", [*map(explain_func, CLASSES), layer_explain_func("3")], ids=lambda e: e.name)
@pytest.mark.filterwarnings("ignore:.*zero everywhere")
def test_no_trace_is_left(explain):
    model = network().train()
    model[3].eval()
    for index, parameter in enumerate(model.parameters()):
        parameter.requires_grad_(index % 2 == 0)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    images, labels = batch(network())
    before, given = everything(model), images.copy()
    with torch.no_grad():
        found = explain(model, images, labels)
        assert not torch.is_grad_enabled()
    assert same(everything(model), before)
    assert np.array_equal(images, given)
    assert np.array_equal(found, explain(network(), images, labels))  # evaluation mode inside


def test_no_trace_is_left_by_an_error():
    model = network().train()
    before = everything(model)
    with pytest.raises(CaptumLipschitzError):
        explain_func("adversarial")(model, batch(network())[0], 99)
    assert same(everything(model), before)


@pytest.mark.parametrize("explain", [explain_func("minimal", effort="fast"), layer_explain_func("3", n_steps=3)])
def test_pickled_and_copied(explain):
    model = network()
    images, labels = batch(model)
    expected = explain(model, images, labels)
    for other in (pickle.loads(pickle.dumps(explain)), copy.deepcopy(explain)):  # noqa: S301 (our own)
        assert other == explain
        assert hash(other) == hash(explain)
        assert np.array_equal(other(model, images, labels), expected)


@pytest.mark.parametrize(("maker", "name"), [(explain_func, "adversarial"), (layer_explain_func, "3")])
def test_it_can_be_a_key_whatever_its_settings(maker, name):
    def make(**settings):
        return maker(name, **settings)

    one, other = make(scale=torch.ones(1, 3, 1, 1), bounds=[0, 1]), make(rho=0.2)
    assert {one: 1, other: 2}[one] == 1
    assert {make(rho=0.1): 1, make(rho=0.2): 2}[make(rho=0.2)] == 2


def test_a_metrics_own_softmax_is_fine():
    metric = quantus.FaithfulnessCorrelation(nr_runs=3, subset_size=8, disable_warnings=True)
    scores = metric(MODEL, IMAGES, LABELS, explain_func=CALL, softmax=True)
    assert np.isfinite(scores).all()


class Gradient:
    """Somebody else's attribution: Captum's gradient; by a factory as a plugin has it."""

    def __init__(self, model):
        self.attribute = lambda inputs, target=None: Saliency(model).attribute(inputs, target, abs=False)


def test_the_attribution_of_somebody_elses_plugin(monkeypatch):
    spec = ComponentSpec("acme:gradient", "attribution", Gradient, "the gradient", "")
    loader = by_name.get.__globals__["_LOADER"]
    monkeypatch.setitem(loader.loaded().components, ("attribution", "acme:gradient"), spec)
    model = network()
    images, labels = batch(model)
    expected = Saliency(model).attribute(torch.tensor(images), target=torch.tensor(labels), abs=False)
    assert np.array_equal(explain_func("acme:gradient", reduce=None)(model, images, labels), expected.numpy())
    with pytest.raises(InvalidInputError, match=r"settings: expected any of \[\] for 'acme:gradient'.*'rho'"):
        explain_func("acme:gradient", rho=1)(model, images, labels)


MODEL = network()
IMAGES, LABELS = batch(MODEL)
CALL = explain_func("adversarial", n_steps=2)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: explain_func("adversarail"), UnknownNameError, "did you mean 'adversarial'"),
        (lambda: explain_func("adversarial", reduce="mean"), InvalidInputError, "reduce: expected one of"),
        (lambda: explain_func("adversarial", target=3), InvalidInputError, "settings: .* got 'target'"),
        (lambda: explain_func("minimal", return_convergence_delta=True), InvalidInputError, "settings: .* got 'return"),
        (
            lambda: explain_func("adversarial", epsilon=0.1)(MODEL, IMAGES, LABELS),
            InvalidInputError,
            "settings: expected any of .*'rho'.* 'epsilon'",
        ),
        (lambda: explain_func("adversarial", rho=-1)(MODEL, IMAGES, LABELS), InvalidInputError, "rho"),
        (lambda: CALL(MODEL, IMAGES, LABELS, softmax=True), InvalidInputError, "softmax: .* logits"),
        (lambda: CALL(MODEL, IMAGES, LABELS, channel_first=False), InvalidInputError, "channel_first: expected True"),
        (lambda: CALL(MODEL, IMAGES, LABELS, rho=1), InvalidInputError, r"explain_func_kwargs: .*\['rho'\].* maker"),
        (
            lambda: CALL(lambda x: x, IMAGES, LABELS),
            InvalidTypeError,
            "model: expected a torch.nn.Module, got function",
        ),
        (lambda: CALL(MODEL, IMAGES.tolist(), LABELS), InvalidTypeError, "inputs: expected an array .* got list"),
        (lambda: CALL(MODEL, IMAGES.astype(str), LABELS), InvalidTypeError, "inputs: expected an array of numbers"),
        (lambda: CALL(MODEL, IMAGES[:0], LABELS[:0]), InvalidInputError, "inputs: expected a non-empty batch"),
        (lambda: CALL(MODEL, IMAGES * np.nan, LABELS), InvalidInputError, "inputs: .*NaN"),
        (lambda: CALL(MODEL, IMAGES, np.eye(5)[LABELS]), InvalidInputError, r"targets: .*\(4, 5\); of one-hot"),
        (lambda: CALL(MODEL, IMAGES, LABELS[:2]), InvalidInputError, r"targets: .*\(4,\), got \(2,\)"),
        (lambda: CALL(MODEL, IMAGES, LABELS + 0.5), InvalidTypeError, "targets: expected integer classes, got float64"),
        (lambda: layer_explain_func(MODEL[3]), InvalidTypeError, "layer: expected its name, .* got Conv2d; .* copies"),
        (lambda: layer_explain_func("3", reduce=None), InvalidInputError, "reduce: .* channels of its own"),
        (lambda: layer_explain_func("3", interpolate_mode="x"), InvalidInputError, "interpolate_mode: expected one of"),
        (
            lambda: layer_explain_func("9")(MODEL, IMAGES, LABELS),
            InvalidInputError,
            "layer: expected one of .*'3'.*'9'",
        ),
        (
            lambda: layer_explain_func("6")(MODEL, IMAGES, LABELS),
            InvalidInputError,
            r"layer: expected activations .*got \(4, 5\) from '6'; they have no place",
        ),
    ],
)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_zero_attributions_are_counted():
    wrong = np.where(np.arange(4) < 3, (LABELS + 1) % 5, LABELS)
    with pytest.warns(CaptumLipschitzWarning, match="'minimal': 3 of 4 attributions are zero everywhere"):
        found = explain_func("minimal")(MODEL, IMAGES, wrong)
    assert [bool(row.any()) for row in found] == [False, False, False, True]


def test_a_softmax_at_the_end_is_warned_of():
    with pytest.warns(CaptumLipschitzWarning, match="model: expected one of logits"):
        CALL(nn.Sequential(MODEL, nn.Softmax(1)), IMAGES, LABELS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CALL(nn.Sequential(MODEL, nn.LogSoftmax(1)), IMAGES, LABELS)
