"""Every setting that people train in: the gradients of plain eager float64, or an error that says what works."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from regularised import STRENGTH, batch, cnn, flat_gradient, reference, regularizer_of_30, relative_error, trained, vit
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointError, checkpoint

from captum_lipschitz import LipschitzRegularizer, RegularizedModule, attach_regularizer
from captum_lipschitz.errors import UnsupportedTrainingError


@pytest.mark.parametrize("network", [cnn, vit])
def test_the_penalty_has_a_say_in_these_gradients(network: Callable[[], nn.Module]) -> None:
    with_penalty, without = reference(network()), reference(network(), strength=0.0)
    assert relative_error(without, with_penalty) > 0.01


def _in_low_precision(
    model: nn.Module, dtype: torch.dtype, *, scale: float | None, strength: float = STRENGTH
) -> Tensor:
    model = copy.deepcopy(model)
    inputs, labels = batch(torch.float32)
    regularizer = LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(3))
    module = RegularizedModule(model, regularizer)
    with torch.autocast("cpu", dtype=dtype):
        logits, penalty = module(inputs, labels)
        task_loss = F.cross_entropy(logits, labels)
    assert logits.dtype == dtype
    loss = regularizer.combine(penalty, task_loss=task_loss).loss if strength else task_loss
    if scale is None:
        loss.backward()
        return flat_gradient(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return flat_gradient(model)


@pytest.mark.parametrize("network", [lambda: cnn(nn.GELU), vit], ids=["cnn", "vit"])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, None), (torch.float16, 1024.0)])
def test_low_precision_errs_at_most_twice_as_much_as_without_the_penalty(
    network: Callable[[], nn.Module], dtype: torch.dtype, scale: float | None
) -> None:
    model = network()
    plain = relative_error(_in_low_precision(model, dtype, scale=scale, strength=0.0), reference(model, strength=0.0))
    penalised = relative_error(_in_low_precision(model, dtype, scale=scale), reference(model))
    assert 0 < plain < 0.1
    assert penalised <= 2 * plain


@pytest.mark.parametrize("strength", [30.0, 300.0])
def test_half_huber_in_bf16_errs_as_much_as_rounding_the_weights_does(strength: float) -> None:
    """Its second derivative jumps: a unit that rounding moves across errs by all it has, in float64 as well."""
    model = cnn()
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    expected = reference(model, strength=strength)
    inherent = relative_error(reference(rounded, strength=strength), expected)
    found = _in_low_precision(model, torch.bfloat16, scale=None, strength=strength)
    assert 0.01 < inherent < 0.1
    assert relative_error(found, expected) <= 2 * inherent


def test_a_gradscalers_scale_does_not_reach_the_penalty() -> None:
    gradients = [_in_low_precision(vit(), torch.float16, scale=scale) for scale in (256.0, 8192.0)]
    assert relative_error(gradients[0], gradients[1]) < 0.002


def test_an_overflow_is_seen_by_the_gradscaler() -> None:
    """BatchNorm's second derivative overflows in fp16 at torch's first scale: the step is skipped, the scale falls."""
    model, (inputs, labels) = cnn(), batch(torch.float32)
    regularizer = regularizer_of_30()
    module = RegularizedModule(model, regularizer)
    scaler, optimizer = torch.amp.GradScaler("cpu", init_scale=2.0**24), torch.optim.SGD(model.parameters(), lr=0.1)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.autocast("cpu", dtype=torch.float16):
        logits, penalty = module(inputs, labels)
        loss = regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**23
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_channels_last() -> None:
    model = cnn().double().to(memory_format=torch.channels_last)
    assert relative_error(trained(model), reference(cnn())) < 1e-12


def test_frozen_layers() -> None:
    model = cnn().double()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    expected = reference(cnn())
    frozen = sum(p.numel() for p in [*model[0].parameters(), *model[1].parameters()])
    found = trained(model)
    assert relative_error(found, expected[frozen:]) < 1e-12
    assert model[0].weight.grad is None


def test_a_transformer_by_its_mathematical_attention() -> None:
    assert relative_error(trained(vit().double()), reference(vit())) < 1e-12


def test_fused_attention_is_refused_by_name() -> None:
    model, (inputs, labels) = vit(), batch(torch.float32)
    inputs.requires_grad_()
    logits = model(inputs)
    with pytest.raises(UnsupportedTrainingError, match=r"fused attention \(ScaledDotProduct.*sdpa_kernel\(SDPBackend"):
        regularizer_of_30()(logits, inputs, labels, task_loss=F.cross_entropy(logits, labels))
    handle = attach_regularizer(model, regularizer_of_30())
    with pytest.raises(UnsupportedTrainingError, match="fused attention"):
        F.cross_entropy(model(inputs.detach()), labels).backward()
    handle.remove()


class Checkpointed(nn.Module):
    """A network whose layers' activations are computed again in the backward pass."""

    def __init__(self, layers: nn.Sequential, *, use_reentrant: bool) -> None:
        super().__init__()
        self.layers = layers
        self.use_reentrant = use_reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        for start in range(0, len(self.layers), 3):
            part = self.layers[start : start + 3]
            inputs = checkpoint(part, inputs, use_reentrant=self.use_reentrant)
        return inputs


def test_checkpointed_activations() -> None:
    model = Checkpointed(cnn().double(), use_reentrant=False)
    assert relative_error(trained(model), reference(cnn())) < 1e-12


class _Again(nn.Module):
    """A layer whose activations are computed again in the backward pass."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = checkpoint(self.layer, inputs, use_reentrant=False)
        return output


def test_checkpointed_attention_needs_its_mathematical_form_in_the_backward_pass_too() -> None:
    model = vit().double()
    for name, layer in list(model.encoder.layers.named_children()):
        model.encoder.layers.set_submodule(name, _Again(layer))
    with sdpa_kernel(SDPBackend.MATH):
        assert relative_error(trained(copy.deepcopy(model)), reference(vit())) < 1e-12
    with pytest.raises(CheckpointError):  # torch's own: never a wrong gradient
        trained(model)


def test_reentrant_checkpointing_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedTrainingError, match=r"reentrant.*use_reentrant=False"):
        trained(Checkpointed(cnn().double(), use_reentrant=True))


def test_layer_norm_and_batch_statistics_are_differentiated_through() -> None:
    """Both were measured to be wrong by half and more through torch.func.jvp."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10)
    ).double()
    found = trained(model)
    direction = [torch.randn_like(p) for p in model.parameters()]

    def loss(step: float) -> Tensor:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), direction, strict=True):
                p.add_(d, alpha=step)
        inputs, labels = batch()
        regularizer = regularizer_of_30()
        logits, penalty = RegularizedModule(moved, regularizer)(inputs, labels)
        return regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.detach()

    along = (loss(1e-5) - loss(-1e-5)) / 2e-5
    expected = (found * torch.cat([d.flatten() for d in direction])).sum()
    torch.testing.assert_close(along, expected, rtol=1e-6, atol=1e-9)
