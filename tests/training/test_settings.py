"""Every setting that people train in: the gradients of plain eager float64, or an error that says what works."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import CheckpointError, checkpoint
from torchvision.models import VisionTransformer

from captum_lipschitz import HalfHuberReLU, LipschitzRegularizer, RegularizedModule, attach_regularizer
from captum_lipschitz.errors import UnsupportedTrainingError

STRENGTH = 30.0


def _cnn(activation: Callable[[], nn.Module] = HalfHuberReLU) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for wide, wider in ((3, 16), (16, 32), (32, 32)):
            layers += [nn.Conv2d(wide, wider, 3, stride=2, padding=1, bias=False), nn.BatchNorm2d(wider), activation()]
        return nn.Sequential(*layers, nn.Flatten(), nn.Linear(32 * 4, 10))


def _vit() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = VisionTransformer(
            image_size=16, patch_size=4, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=64, num_classes=10
        )
        nn.init.normal_(model.heads.head.weight, std=0.1)  # torchvision starts it at zero, where nothing has a slope
        return model


def _batch(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(12, 3, 16, 16, generator=generator).to(dtype), torch.randint(10, (12,), generator=generator)


def _regularizer(**settings: Any) -> LipschitzRegularizer:
    return LipschitzRegularizer(strength=STRENGTH, generator=torch.Generator().manual_seed(3), **settings)


def _flat(model: nn.Module) -> Tensor:
    return torch.cat([p.grad.double().flatten() for p in model.parameters() if p.grad is not None])


def _reference(model: nn.Module, *, strength: float = STRENGTH) -> Tensor:
    """Eager, float64, the loss written out."""
    model = copy.deepcopy(model).double()
    inputs, labels = _batch()
    leaf = inputs.clone().requires_grad_()
    regularizer = LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(3))
    with sdpa_kernel(SDPBackend.MATH):
        logits = model(leaf)
    regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss.backward()
    return _flat(model)


def _error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _regularised(model: nn.Module, dtype: torch.dtype = torch.float64, **compile_options: Any) -> Tensor:
    inputs, labels = _batch(dtype)
    regularizer = _regularizer()
    module = RegularizedModule(model, regularizer)
    if compile_options:
        module.compile(**compile_options)
    logits, penalty = module(inputs, labels)
    regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.backward()
    return _flat(model)


@pytest.mark.parametrize("network", [_cnn, _vit])
def test_the_penalty_has_a_say_in_these_gradients(network: Callable[[], nn.Module]) -> None:
    with_penalty, without = _reference(network()), _reference(network(), strength=0.0)
    assert _error(without, with_penalty) > 0.01


def _in_low_precision(
    model: nn.Module, dtype: torch.dtype, *, scale: float | None, strength: float = STRENGTH
) -> Tensor:
    model = copy.deepcopy(model)
    inputs, labels = _batch(torch.float32)
    regularizer = LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(3))
    module = RegularizedModule(model, regularizer)
    with torch.autocast("cpu", dtype=dtype):
        logits, penalty = module(inputs, labels)
        task_loss = F.cross_entropy(logits, labels)
    assert logits.dtype == dtype
    loss = regularizer.combine(penalty, task_loss=task_loss).loss if strength else task_loss
    if scale is None:
        loss.backward()
        return _flat(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    return _flat(model)


@pytest.mark.parametrize("network", [lambda: _cnn(nn.GELU), _vit], ids=["cnn", "vit"])
@pytest.mark.parametrize(("dtype", "scale"), [(torch.bfloat16, None), (torch.float16, 1024.0)])
def test_low_precision_errs_at_most_twice_as_much_as_without_the_penalty(
    network: Callable[[], nn.Module], dtype: torch.dtype, scale: float | None
) -> None:
    model = network()
    plain = _error(_in_low_precision(model, dtype, scale=scale, strength=0.0), _reference(model, strength=0.0))
    penalised = _error(_in_low_precision(model, dtype, scale=scale), _reference(model))
    assert 0 < plain < 0.1
    assert penalised <= 2 * plain


@pytest.mark.parametrize("strength", [30.0, 300.0])
def test_half_huber_in_bf16_errs_as_much_as_rounding_the_weights_does(strength: float) -> None:
    """Its second derivative jumps: a unit that rounding moves across errs by all it has, in float64 as well."""
    model = _cnn()
    rounded = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in rounded.parameters():
            parameter.copy_(parameter.bfloat16())
    expected = _reference(model, strength=strength)
    inherent = _error(_reference(rounded, strength=strength), expected)
    found = _in_low_precision(model, torch.bfloat16, scale=None, strength=strength)
    assert 0.01 < inherent < 0.1
    assert _error(found, expected) <= 2 * inherent


def test_a_gradscalers_scale_does_not_reach_the_penalty() -> None:
    gradients = [_in_low_precision(_vit(), torch.float16, scale=scale) for scale in (256.0, 8192.0)]
    assert _error(gradients[0], gradients[1]) < 0.002


def test_an_overflow_is_seen_by_the_gradscaler() -> None:
    """BatchNorm's second derivative overflows in fp16 at torch's first scale: the step is skipped, the scale falls."""
    model, (inputs, labels) = _cnn(), _batch(torch.float32)
    regularizer = _regularizer()
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
    model = _cnn().double().to(memory_format=torch.channels_last)
    assert _error(_regularised(model), _reference(_cnn())) < 1e-12


def test_frozen_layers() -> None:
    model = _cnn().double()
    model[0].requires_grad_(False)
    model[1].requires_grad_(False)
    expected = _reference(_cnn())
    frozen = sum(p.numel() for p in [*model[0].parameters(), *model[1].parameters()])
    found = _regularised(model)
    assert _error(found, expected[frozen:]) < 1e-12
    assert model[0].weight.grad is None


def test_a_transformer_by_its_mathematical_attention() -> None:
    assert _error(_regularised(_vit().double()), _reference(_vit())) < 1e-12


def test_fused_attention_is_refused_by_name() -> None:
    model, (inputs, labels) = _vit(), _batch(torch.float32)
    inputs.requires_grad_()
    logits = model(inputs)
    with pytest.raises(UnsupportedTrainingError, match=r"fused attention \(ScaledDotProduct.*sdpa_kernel\(SDPBackend"):
        _regularizer()(logits, inputs, labels, task_loss=F.cross_entropy(logits, labels))
    handle = attach_regularizer(model, _regularizer())
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
    model = Checkpointed(_cnn().double(), use_reentrant=False)
    assert _error(_regularised(model), _reference(_cnn())) < 1e-12


class _Again(nn.Module):
    """A layer whose activations are computed again in the backward pass."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, inputs: Tensor) -> Tensor:
        output: Tensor = checkpoint(self.layer, inputs, use_reentrant=False)
        return output


def test_checkpointed_attention_needs_its_mathematical_form_in_the_backward_pass_too() -> None:
    model = _vit().double()
    for name, layer in list(model.encoder.layers.named_children()):
        model.encoder.layers.set_submodule(name, _Again(layer))
    with sdpa_kernel(SDPBackend.MATH):
        assert _error(_regularised(copy.deepcopy(model)), _reference(_vit())) < 1e-12
    with pytest.raises(CheckpointError):  # torch's own: never a wrong gradient
        _regularised(model)


def test_reentrant_checkpointing_is_refused_by_name() -> None:
    with pytest.raises(UnsupportedTrainingError, match=r"reentrant.*use_reentrant=False"):
        _regularised(Checkpointed(_cnn().double(), use_reentrant=True))


def test_layer_norm_and_batch_statistics_are_differentiated_through() -> None:
    """Both were measured to be wrong by half and more through torch.func.jvp."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=4), nn.BatchNorm2d(4), nn.GELU(), nn.Flatten(), nn.LayerNorm(64), nn.Linear(64, 10)
    ).double()
    found = _regularised(model)
    direction = [torch.randn_like(p) for p in model.parameters()]

    def loss(step: float) -> Tensor:
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, d in zip(moved.parameters(), direction, strict=True):
                p.add_(d, alpha=step)
        inputs, labels = _batch()
        regularizer = _regularizer()
        logits, penalty = RegularizedModule(moved, regularizer)(inputs, labels)
        return regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.detach()

    along = (loss(1e-5) - loss(-1e-5)) / 2e-5
    expected = (found * torch.cat([d.flatten() for d in direction])).sum()
    torch.testing.assert_close(along, expected, rtol=1e-6, atol=1e-9)


# Compiled. "aot_eager" traces and differentiates as the default backend does, and leaves out the code generator.


@contextmanager
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


@pytest.mark.parametrize("network", [_cnn, _vit])
def test_compiled(network: Callable[[], nn.Module]) -> None:
    with _fresh_compiler():
        assert _error(_regularised(network().double(), backend="aot_eager"), _reference(network())) < 1e-10


@pytest.mark.slow
def test_compiled_with_generated_code_step_after_step() -> None:
    with _fresh_compiler():
        models = [_cnn(nn.GELU).double() for _ in range(2)]
        losses: list[list[Tensor]] = [[], []]
        for compiled, model in enumerate(models):
            regularizer = _regularizer(every=2)
            module = RegularizedModule(model, regularizer)
            if compiled:
                module.compile()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(4):
                inputs, labels = _batch()
                logits, penalty = module(inputs, labels)
                loss = regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses[compiled].append(loss.detach())
        torch.testing.assert_close(losses[1], losses[0], rtol=1e-9, atol=1e-12)
        for a, b in zip(models[0].buffers(), models[1].buffers(), strict=True):
            torch.testing.assert_close(a, b)  # comparing the gradients has not moved the batch statistics


class _Custom(torch.autograd.Function):
    """The half-Huber ReLU as a custom function: right uncompiled, without a second derivative compiled."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor) -> Tensor:
        ctx.save_for_backward(inputs)
        return HalfHuberReLU()(inputs)  # type: ignore[no-any-return]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return gradient * ctx.saved_tensors[0].clamp(0, 0.5) / 0.5


class _CustomHalfHuber(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return _Custom.apply(inputs)  # type: ignore[no-any-return]


def test_a_compiled_custom_function_is_refused() -> None:
    assert _error(_regularised(_cnn(_CustomHalfHuber).double()), _reference(_cnn())) < 1e-12
    with _fresh_compiler(), pytest.raises(UnsupportedTrainingError, match=r"gradient differs.*autograd\.Function"):
        _regularised(_cnn(_CustomHalfHuber).double(), backend="aot_eager")
    with _fresh_compiler():  # and would be silently wrong
        found = _regularised(_cnn(_CustomHalfHuber).double(), backend="aot_eager", verify=False)
    assert _error(found, _reference(_cnn())) > 0.01


def test_compiling_from_outside_is_refused_by_name() -> None:
    inputs, labels = _batch()
    regularizer = _regularizer()

    def step(model: nn.Module, leaf: Tensor) -> Tensor:
        logits = model(leaf)
        return regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss

    leaf = inputs.clone().requires_grad_()
    for tracing in (False, True):
        with (
            _fresh_compiler(),
            torch._dynamo.config.patch(trace_autograd_ops=tracing),
            pytest.raises(UnsupportedTrainingError, match=r"compile itself.*module\.compile\(\)"),
        ):
            torch.compile(step, backend="aot_eager")(_cnn().double(), leaf)
    module = torch.compile(RegularizedModule(_cnn().double(), regularizer), backend="aot_eager")
    with _fresh_compiler(), pytest.raises(UnsupportedTrainingError, match=r"compile itself.*module\.compile\(\)"):
        module(inputs, labels)
    with _fresh_compiler():
        logits = torch.compile(_cnn().double(), backend="aot_eager")(leaf)
        with pytest.raises(UnsupportedTrainingError, match=r"compile itself.*module\.compile\(\)"):
            regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))


def test_dropout_does_not_disturb_the_comparison() -> None:
    inputs, labels = _batch()
    with _fresh_compiler():
        module = RegularizedModule(nn.Sequential(_cnn(), nn.Dropout(0.5)).double(), _regularizer())
        module.compile(backend="aot_eager")
        module(inputs, labels)
        assert all(layer.training for layer in module.modules())
