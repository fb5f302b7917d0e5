"""Captum's methods for layers and neurons give right answers on networks with half-Huber ReLUs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from activation_oracles import clipped_gradient, relevance, rescale
from captum.attr import (
    LRP,
    GuidedGradCam,
    LayerAttribution,
    LayerDeepLift,
    LayerDeepLiftShap,
    LayerGradCam,
    LayerLRP,
    NeuronDeconvolution,
    NeuronDeepLift,
    NeuronDeepLiftShap,
    NeuronGuidedBackprop,
)
from half_huber_networks import (
    assert_close,
    build_chain,
    build_convolutional,
    draw,
    outputs_differ,
)

from captum_lipschitz.attr.registration import register_with_captum

pytestmark = pytest.mark.filterwarnings("ignore:Setting")  # Captum tells of its hooks on every call


@pytest.fixture
def registered() -> Iterator[None]:
    with register_with_captum():
        yield


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("index", range(5))
@pytest.mark.parametrize("at_input", [False, True])
def test_layer_deep_lift_shares_out_the_difference(index: int, at_input: bool) -> None:
    model, inputs, baselines = build_chain(4), draw(1, 3, 5), draw(2, 3, 5)
    expected = outputs_differ(model, inputs, baselines, 1)
    found = LayerDeepLift(model, model[index]).attribute(inputs, baselines, 1, attribute_to_layer_input=at_input)
    assert_close(found.sum(1), expected)
    assert not hasattr(model[index], "output")  # what Captum keeps there for its rule
    if index == 1:
        prefix = model[: index + (not at_input)]
        rest = model[index + (not at_input) :]
        with torch.no_grad():
            pairs = zip(prefix(inputs), prefix(baselines), strict=True)
        assert_close(found, torch.stack([rescale(rest, x, b, 1) for x, b in pairs]))
    shap = LayerDeepLiftShap(model, model[index]).attribute(inputs, baselines, 1, attribute_to_layer_input=at_input)
    with torch.no_grad():
        assert_close(shap.sum(1), model(inputs)[:, 1] - model(baselines)[:, 1].mean())


@pytest.mark.usefixtures("registered")
def test_layer_lrp_at_the_layers_between() -> None:
    model, inputs = build_chain(5, bias=False), draw(1, 3, 5)
    whole = LRP(model).attribute(inputs, 1)
    first = LayerLRP(model, model[0]).attribute(inputs, 1, attribute_to_layer_input=True)
    assert_close(first, whole)
    hidden = LayerLRP(model, model[2]).attribute(inputs, 1, attribute_to_layer_input=True)
    with torch.no_grad():
        values = model[:2](inputs)
    assert_close(hidden, torch.stack([relevance(model[2:], x, 1) for x in values]), rtol=1e-8, atol=1e-9)


@pytest.mark.usefixtures("registered")
def test_neurons() -> None:
    model, inputs, baselines = build_chain(6), draw(1, 3, 5), draw(2, 3, 5)
    prefix = model[:4]  # up to the second half-Huber ReLU
    found = NeuronDeepLift(model, model[3]).attribute(inputs, 2, baselines)
    assert_close(found, torch.stack([rescale(prefix, x, b, 2) for x, b in zip(inputs, baselines, strict=True)]))
    shap = NeuronDeepLiftShap(model, model[3]).attribute(inputs, 2, baselines)
    assert_close(shap.sum(1), prefix(inputs)[:, 2].detach() - prefix(baselines)[:, 2].mean().detach())
    for method, guided in ((NeuronGuidedBackprop, True), (NeuronDeconvolution, False)):
        expected = clipped_gradient(prefix[:3], inputs, 4, guided=guided)
        assert_close(method(model, model[2]).attribute(inputs, 4), expected)
        assert expected.any()


@pytest.mark.usefixtures("registered")
def test_guided_grad_cam() -> None:
    model, inputs = build_convolutional(), draw(0, 3, 2, 8, 8)
    layer = model.features[5]
    cam = LayerGradCam(model, layer).attribute(inputs, 1, relu_attributions=True)
    expected = clipped_gradient(model, inputs, 1, guided=True) * LayerAttribution.interpolate(cam, (8, 8))
    assert_close(GuidedGradCam(model, layer).attribute(inputs, 1), expected)
    assert expected.any()
