"""Captum's DeepLift, LRP, GuidedBackprop and Deconvolution give right answers on networks with half-Huber ReLUs."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from activation_oracles import clipped_gradient, relevance, rescale
from captum.attr import (
    LRP,
    Deconvolution,
    DeepLift,
    DeepLiftShap,
    GuidedBackprop,
    Saliency,
)
from half_huber_networks import (
    Residual,
    Reusing,
    SmallHalfHuber,
    assert_close,
    build_chain,
    build_convolutional,
    draw,
    kinds,
    outputs_differ,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from torch import Tensor, nn

from captum_lipschitz import HalfHuberReLU
from captum_lipschitz.attr.registration import register_with_captum
from captum_lipschitz.models import PreActResNet44

pytestmark = pytest.mark.filterwarnings("ignore:Setting")  # Captum tells of its hooks on every call


@pytest.fixture
def registered() -> Iterator[None]:
    with register_with_captum():
        yield


@given(seeds, kinds, st.integers(0, 2))
def test_deep_lift_is_the_rescale_rule(seed: int, kind: str, target: int) -> None:
    model, inputs, baselines = build_chain(seed, kind), draw(seed + 1, 3, 5), draw(seed + 2, 3, 5)
    baselines[0, :2] = inputs[0, :2]
    baselines[1] = inputs[1]  # equal throughout: no difference to share out
    expected = torch.stack([rescale(model, x, b, target) for x, b in zip(inputs, baselines, strict=True)])
    with register_with_captum():
        found, delta = DeepLift(model).attribute(inputs, baselines, target, return_convergence_delta=True)
        local = DeepLift(model, multiply_by_inputs=False).attribute(inputs, baselines, target)
    assert_close(found, expected)
    assert delta.abs().max() < 1e-10
    gradient = Saliency(model).attribute(inputs[1:2], target, abs=False)
    assert_close(local[1:2], gradient)  # the rule's limit is h'


@given(seeds, kinds)
def test_deep_lift_shap_is_the_mean_over_baselines(seed: int, kind: str) -> None:
    model, inputs, baselines = build_chain(seed, kind), draw(seed + 1, 2, 5), draw(seed + 2, 4, 5)
    expected = [torch.stack([rescale(model, x, b, 2) for b in baselines]).mean(0) for x in inputs]
    with register_with_captum():
        found, delta = DeepLiftShap(model).attribute(inputs, baselines, 2, return_convergence_delta=True)
    assert_close(found, torch.stack(expected))
    assert delta.abs().max() < 1e-10


@given(seeds, kinds, st.integers(0, 2))
def test_lrp_is_the_epsilon_rule(seed: int, kind: str, target: int) -> None:
    model, inputs = build_chain(seed, kind), draw(seed + 1, 3, 5)
    with register_with_captum():
        found = LRP(model).attribute(inputs, target)
    assert_close(found, torch.stack([relevance(model, x, target) for x in inputs]), rtol=1e-8, atol=1e-9)


@given(seeds, kinds)
def test_lrp_conserves_relevance_where_there_is_no_bias(seed: int, kind: str) -> None:
    model, inputs = build_chain(seed, kind, bias=False), draw(seed + 1, 3, 5)
    with register_with_captum():
        found, delta = LRP(model).attribute(inputs, 1, return_convergence_delta=True)
    torch.testing.assert_close(found.sum(1), model(inputs)[:, 1], rtol=1e-5, atol=1e-6)  # epsilon takes its share
    torch.testing.assert_close(delta, model(inputs)[:, 1] - found.sum(1))


@given(seeds, kinds, st.sampled_from([True, False]))
def test_guided_backpropagation_and_deconvolution_clip(seed: int, kind: str, guided: bool) -> None:
    model, inputs = build_chain(seed, kind), draw(seed + 1, 3, 5)
    targets = torch.tensor([0, 1, 2])
    with register_with_captum():
        found = (GuidedBackprop if guided else Deconvolution)(model).attribute(inputs, targets)
    assert_close(found, clipped_gradient(model, inputs, targets, guided=guided))


def test_without_registration_the_answers_are_wrong_or_refused() -> None:
    model, inputs, baselines = build_chain(0), draw(1, 3, 5), draw(2, 3, 5)
    _, delta = DeepLift(model).attribute(inputs, baselines, 1, return_convergence_delta=True)
    _, shap_delta = DeepLiftShap(model).attribute(inputs, baselines, 1, return_convergence_delta=True)
    assert delta.abs().min() > 0.1
    assert shap_delta.abs().min() > 0.1
    gradient = Saliency(model).attribute(inputs, 1, abs=False)
    for method in (GuidedBackprop, Deconvolution):
        assert torch.equal(method(model).attribute(inputs, 1), gradient)  # nothing is clipped
    with pytest.raises(TypeError, match=r"HalfHuberReLU.*has no rule defined"):
        LRP(model).attribute(inputs, 1)


@pytest.mark.usefixtures("registered")
def test_guided_backpropagation_differs_from_the_gradient_and_from_deconvolution() -> None:
    model, inputs = build_chain(0), draw(1, 3, 5)
    answers = [method(model).attribute(inputs, 1) for method in (GuidedBackprop, Deconvolution)]
    answers.append(Saliency(model).attribute(inputs, 1, abs=False))
    for i, j in ((0, 1), (0, 2), (1, 2)):
        assert (answers[i] - answers[j]).abs().max() > 0.1


@pytest.mark.usefixtures("registered")
def test_convolutions_batch_norm_and_pooling() -> None:
    model, inputs, baselines = build_convolutional(), draw(0, 3, 2, 8, 8), draw(1, 3, 2, 8, 8)
    found, delta = DeepLift(model).attribute(inputs, baselines, 2, return_convergence_delta=True)
    assert_close(found.sum((1, 2, 3)), outputs_differ(model, inputs, baselines, 2))
    assert delta.abs().max() < 1e-12
    assert DeepLiftShap(model).attribute(inputs, baselines, 2, return_convergence_delta=True)[1].abs().max() < 1e-12
    for method, guided in ((GuidedBackprop, True), (Deconvolution, False)):
        expected = clipped_gradient(model, inputs, 2, guided=guided)
        assert_close(method(model).attribute(inputs, 2), expected)
    assert DeepLift(model).attribute(inputs, baselines, 2).dtype == torch.float64


@pytest.mark.usefixtures("registered")
def test_lrp_conserves_relevance_through_convolutions_and_pooling() -> None:
    model = build_convolutional()
    for module in model.modules():
        if getattr(module, "bias", None) is not None:
            module.bias.data.zero_()
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.zero_()
    inputs = draw(0, 3, 2, 8, 8)
    found = LRP(model).attribute(inputs, 2)
    torch.testing.assert_close(found.sum((1, 2, 3)), model(inputs)[:, 2], rtol=1e-5, atol=1e-6)


@pytest.mark.usefixtures("registered")
def test_a_subclass_counts_as_half_huber() -> None:
    model, inputs, baselines = build_chain(7), draw(1, 3, 5), draw(2, 3, 5)
    model[1], model[3] = SmallHalfHuber(), SmallHalfHuber()
    plain = copy.deepcopy(model)
    plain[1], plain[3] = HalfHuberReLU(0.1), HalfHuberReLU(0.1)
    for method in (LRP, GuidedBackprop, Deconvolution):
        assert torch.equal(method(model).attribute(inputs, 1), method(plain).attribute(inputs, 1))
    found, delta = DeepLift(model).attribute(inputs, baselines, 1, return_convergence_delta=True)
    assert torch.equal(found, DeepLift(plain).attribute(inputs, baselines, 1))
    assert delta.abs().max() < 1e-10


METHODS: list[Callable[[nn.Module], Callable[..., Any]]] = [
    lambda m: partial(DeepLift(m).attribute, baselines=draw(1, 3, 2, 8, 8)),
    lambda m: partial(DeepLiftShap(m).attribute, baselines=draw(1, 3, 2, 8, 8)),
    lambda m: LRP(m).attribute,
    lambda m: GuidedBackprop(m).attribute,
    lambda m: Deconvolution(m).attribute,
]


@pytest.mark.parametrize("method", METHODS, ids=["DeepLift", "DeepLiftShap", "LRP", "GuidedBackprop", "Deconvolution"])
def test_networks_with_relu_give_the_same_bits(method: Callable[[nn.Module], Callable[..., Any]]) -> None:
    model, inputs = build_convolutional(nn.ReLU), draw(0, 3, 2, 8, 8)
    before = method(model)(inputs, target=1)
    with register_with_captum():
        during = method(model)(inputs, target=1)
    assert torch.equal(before, during)
    assert torch.equal(before, method(model)(inputs, target=1))


@given(seeds)
def test_activations_beside_skip_connections_and_each_other(seed: int) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Residual()
        for parameter in model.parameters():
            parameter.data.normal_()
    inputs, baselines = draw(seed + 1, 3, 5), draw(seed + 2, 3, 5)
    with register_with_captum():
        _, delta = DeepLift(model).attribute(inputs, baselines, 1, return_convergence_delta=True)
        assert delta.abs().max() < 1e-10
        for method, guided in ((GuidedBackprop, True), (Deconvolution, False)):
            assert_close(method(model).attribute(inputs, 1), clipped_gradient(model, inputs, 1, guided=guided))


@pytest.mark.usefixtures("registered")
def test_an_activation_used_twice_is_refused_by_deep_lift_and_clipped_twice() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Reusing()
        for parameter in model.parameters():
            parameter.data.normal_()
    inputs = draw(1, 3, 5)
    with pytest.raises(RuntimeError, match="more than once"):
        DeepLift(model).attribute(inputs, target=1)
    for method, guided in ((GuidedBackprop, True), (Deconvolution, False)):
        assert_close(method(model).attribute(inputs, 1), clipped_gradient(model, inputs, 1, guided=guided))


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("name", ["standard", "robust"])
def test_the_authors_networks(name: str, cifar10_test: tuple[Tensor, Tensor], request: pytest.FixtureRequest) -> None:
    model: PreActResNet44 = copy.deepcopy(request.getfixturevalue(f"{name}_network")).double()
    images, labels = cifar10_test[0][:2].double(), cifar10_test[1][:2]
    found, delta = DeepLift(model).attribute(images, 0 * images, labels, return_convergence_delta=True)
    assert delta.abs().max() < 1e-9
    assert found.any()
    for method, guided in ((GuidedBackprop, True), (Deconvolution, False)):
        expected = clipped_gradient(model, images, labels, guided=guided)
        scale = float(expected.abs().max())
        torch.testing.assert_close(method(model).attribute(images, labels) / scale, expected / scale)
