"""Compiled training: the gradients of uncompiled training, or an error that says what works.

"aot_eager" traces and differentiates as the default backend does, and leaves out the code generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from regularised import batch, cnn, reference, regularizer_of_30, relative_error, trained, vit
from torch import Tensor, nn
from torch.nn import functional as F
from versions import TRACES_GRADIENTS, compiles

from captum_lipschitz import HalfHuberReLU, RegularizedModule
from captum_lipschitz.errors import UnsupportedTrainingError


@contextmanager
def _fresh_compiler() -> Iterator[None]:
    torch._dynamo.reset()
    try:
        yield
    finally:
        torch._dynamo.reset()


def test_a_torch_that_cannot_trace_gradients_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    if TRACES_GRADIENTS:
        monkeypatch.setattr(torch._dynamo, "config", SimpleNamespace())
    module = RegularizedModule(cnn(), regularizer_of_30())
    with pytest.raises(UnsupportedTrainingError, match=r"compile: expected torch 2\.11 or newer, .*got "):
        module.compile()
    logits, penalty = module(*batch(torch.float32))  # goes on uncompiled
    assert logits.shape == (12, 10)
    assert penalty.item() > 0


@compiles
@pytest.mark.parametrize("network", [cnn, vit])
def test_compiled(network: Callable[[], nn.Module]) -> None:
    with _fresh_compiler():
        assert relative_error(trained(network().double(), backend="aot_eager"), reference(network())) < 1e-10


@compiles
@pytest.mark.slow
def test_compiled_with_generated_code_step_after_step() -> None:
    with _fresh_compiler():
        models = [cnn(nn.GELU).double() for _ in range(2)]
        losses: list[list[Tensor]] = [[], []]
        for compiled, model in enumerate(models):
            regularizer = regularizer_of_30(every=2)
            module = RegularizedModule(model, regularizer)
            if compiled:
                module.compile()
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            for _ in range(4):
                inputs, labels = batch()
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


@compiles
def test_a_compiled_custom_function_is_refused() -> None:
    assert relative_error(trained(cnn(_CustomHalfHuber).double()), reference(cnn())) < 1e-12
    with _fresh_compiler(), pytest.raises(UnsupportedTrainingError, match=r"gradient differs.*autograd\.Function"):
        trained(cnn(_CustomHalfHuber).double(), backend="aot_eager")
    with _fresh_compiler():  # and would be silently wrong
        found = trained(cnn(_CustomHalfHuber).double(), backend="aot_eager", verify=False)
    assert relative_error(found, reference(cnn())) > 0.01


@compiles
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_is_refused_in_low_precision_too(dtype: torch.dtype) -> None:
    inputs, labels = torch.rand(16, 3, 64, 64), torch.arange(16) % 10
    model = nn.Sequential(cnn(_CustomHalfHuber)[:9], nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    with _fresh_compiler(), torch.autocast("cpu", dtype=dtype):
        module = RegularizedModule(model, regularizer_of_30())
        module.compile(backend="aot_eager")
        with pytest.raises(UnsupportedTrainingError, match="gradient differs"):
            module(inputs, labels)


@compiles
def test_what_has_no_gradient_yet_is_compared_later() -> None:
    inputs, labels = batch()
    model = cnn(_CustomHalfHuber).double()
    nn.init.zeros_(model[-1].weight)  # as torchvision's transformers start
    with _fresh_compiler():
        module = RegularizedModule(model, regularizer_of_30())
        module.compile(backend="aot_eager")
        assert module(inputs, labels).penalty == 0
        nn.init.normal_(model[-1].weight, std=0.1)
        with pytest.raises(UnsupportedTrainingError, match="gradient differs"):
            module(inputs, labels)


@compiles
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_compiled_in_low_precision(dtype: torch.dtype) -> None:
    inputs, labels = batch(torch.float32)
    penalties = []
    with _fresh_compiler(), torch.autocast("cpu", dtype=dtype):
        for compiled in (False, True):
            module = RegularizedModule(cnn(), regularizer_of_30())
            if compiled:
                module.compile(backend="aot_eager")
            penalties.append(module(inputs, labels).penalty)
    torch.testing.assert_close(penalties[1], penalties[0], rtol=0.02, atol=0)


class _Interrupted(nn.Module):
    """A model that a compiler cannot see as one graph."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = cnn()

    def forward(self, inputs: Tensor) -> Tensor:
        torch._dynamo.graph_break()
        output: Tensor = self.inner(inputs)
        return output


@compiles
def test_an_interrupted_graph_is_refused_by_name() -> None:
    with _fresh_compiler(), pytest.raises(UnsupportedTrainingError, match="the model interrupts the graph"):
        trained(_Interrupted().double(), backend="aot_eager")


# Dynamo, on its way to the refusal, looks at the gradients of the frame's tensors.
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf:UserWarning")
def test_compiling_from_outside_is_refused_by_name() -> None:
    inputs, labels = batch()
    regularizer = regularizer_of_30()

    def step(model: nn.Module, leaf: Tensor) -> Tensor:
        logits = model(leaf)
        return regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss

    leaf = inputs.clone().requires_grad_()
    for tracing in (False, True) if TRACES_GRADIENTS else (None,):
        with (
            _fresh_compiler(),
            nullcontext() if tracing is None else torch._dynamo.config.patch(trace_autograd_ops=tracing),
            pytest.raises(UnsupportedTrainingError, match=r"compile itself.*module\.compile\(\)"),
        ):
            torch.compile(step, backend="aot_eager")(cnn().double(), leaf)
    module = torch.compile(RegularizedModule(cnn().double(), regularizer), backend="aot_eager")
    with _fresh_compiler(), pytest.raises(UnsupportedTrainingError, match=r"compile itself.*module\.compile\(\)"):
        module(inputs, labels)
    with _fresh_compiler():
        logits = torch.compile(cnn().double(), backend="aot_eager")(leaf)
        with pytest.raises(UnsupportedTrainingError, match=r"compile itself.*module\.compile\(\)"):
            regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))


@compiles
def test_dropout_does_not_disturb_the_comparison() -> None:
    inputs, labels = batch()
    with _fresh_compiler():
        module = RegularizedModule(nn.Sequential(cnn(), nn.Dropout(0.5)).double(), regularizer_of_30())
        module.compile(backend="aot_eager")
        module(inputs, labels)
        assert all(layer.training for layer in module.modules())
