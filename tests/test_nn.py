"""The half-Huber ReLU against its definition, and replacing activations in every torchvision classifier."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.functional import relu as renamed

from captum_lipschitz import HalfHuberReLU, replace_activations
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, UnreachableActivationError

torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed: pip install torchvision")


@pytest.mark.parametrize("delta", [0.1, 0.5, 2.0])
def test_half_huber_is_its_definition(delta: float) -> None:
    x = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    c = x.clamp(0, delta)
    torch.testing.assert_close(HalfHuberReLU(delta)(x), c * (x - c / 2) / delta, rtol=1e-12, atol=1e-12)
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(HalfHuberReLU(delta)(leaf).sum(), leaf)
    torch.testing.assert_close(slope, c / delta, rtol=1e-12, atol=1e-12)


def test_half_huber_second_derivative() -> None:
    x = torch.tensor([-1.0, 0.2, 0.4, 0.9], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(HalfHuberReLU()(x).sum(), x, create_graph=True)
    (curvature,) = torch.autograd.grad(slope.sum(), x)
    assert curvature.tolist() == [0.0, 2.0, 2.0, 0.0]
    assert torch.autograd.gradgradcheck(HalfHuberReLU(), (x,))


def test_half_huber_refuses_a_delta_that_is_none() -> None:
    with pytest.raises(InvalidInputError, match="delta: expected a positive value, got 0"):
        HalfHuberReLU(0)


def test_shared_activations_stay_shared_and_other_parts_stay_the_same() -> None:
    relu = nn.ReLU(inplace=True)
    model = nn.Sequential(nn.BatchNorm1d(3), relu, nn.Linear(3, 3), relu, nn.Sequential(nn.ReLU(), nn.GELU())).eval()
    assert replace_activations(model) is model
    assert model[1] is model[3] is not model[4][0]
    assert isinstance(model[1], HalfHuberReLU)
    assert not model[1].training
    assert isinstance(model[4][1], nn.GELU)


class _Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.relu(self.norm(self.relu(x))) + x.relu() + torch.relu(x)


class _Deciding(_Functional):
    """Its path depends on a value, so that no symbolic trace exists."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else self.relu(x)


def _act(x: torch.Tensor) -> torch.Tensor:
    return renamed(x)


class _Hidden(nn.Module):
    """ReLU where no look at the class's own source would find it."""

    def __init__(self, activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.norm, self.relu, self.activations = nn.BatchNorm1d(3), nn.ReLU(), [activation]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.activations[0](self.norm(self.relu(x)))


class _Overriding(_Functional):
    """Inherits a forward with functional calls, and does not use it; calls a child's ReLU by its path."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.ModuleDict({"relu": nn.ReLU()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block.relu(self.norm(self.relu(x)))


@pytest.mark.parametrize("kind", [_Functional, _Deciding])
def test_functional_relus_are_listed_and_nothing_is_replaced(kind: type[_Functional]) -> None:
    model = nn.Sequential(kind(), nn.TransformerEncoderLayer(8, 2))
    with pytest.raises(UnreachableActivationError) as caught:
        replace_activations(model)
    message = str(caught.value)
    assert f"0: {kind.__name__}, " in message
    assert "1: TransformerEncoderLayer, attribute activation" in message
    assert message.count("calls") == 4  # the three calls, and the advice at the end
    assert isinstance(model[0].relu, nn.ReLU)


@pytest.mark.parametrize(
    "activation",
    [_act, partial(F.relu), renamed, getattr(F, "relu"), lambda x: x.relu()],  # noqa: B009
)
def test_hidden_functional_relus_are_found(activation: Callable[[torch.Tensor], torch.Tensor]) -> None:
    model = _Hidden(activation)
    for form in (model, torch.fx.symbolic_trace(model)):
        with pytest.raises(UnreachableActivationError, match="Nothing was replaced"):
            replace_activations(form)
        assert isinstance(form.relu, nn.ReLU)


def test_code_that_is_not_run_is_not_held_against_a_model() -> None:
    model = replace_activations(_Overriding())
    assert isinstance(model.relu, HalfHuberReLU)
    assert isinstance(model.block.relu, HalfHuberReLU)


class _Chosen(nn.Sequential):
    """Cannot be traced, as its path depends on a value."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) if x.sum() > 0 else x


@pytest.mark.parametrize("kind", [nn.Sequential, _Chosen])
def test_half_huber_that_is_there_already_is_no_hindrance(kind: type[nn.Sequential]) -> None:
    model = kind(nn.BatchNorm1d(3), HalfHuberReLU(0.1), nn.ReLU())
    before = model[1]
    replace_activations(model)
    assert model[1] is before
    assert isinstance(model[2], HalfHuberReLU)


def test_warnings_where_a_replacement_does_nothing_or_harm() -> None:
    with pytest.warns(CaptumLipschitzWarning, match=r"no nn\.ReLU"):
        replace_activations(nn.Sequential(nn.BatchNorm1d(2), nn.GELU()))
    with pytest.warns(CaptumLipschitzWarning, match="no normalisation layer"):
        replace_activations(nn.Sequential(nn.Linear(2, 2), nn.ReLU()))
    with pytest.raises(InvalidInputError, match=r"an nn\.ReLU itself"):
        replace_activations(nn.ReLU())


def _relus_in_graph(model: nn.Module) -> int:
    """Functional relu calls that a symbolic trace of the model sees: an independent look at its forward."""
    graph = torch.fx.symbolic_trace(model).graph
    functions = {F.relu, torch.relu, F.relu_, torch.relu_, F.relu6}
    return sum(
        node.target in functions if node.op == "call_function" else node.op == "call_method" and node.target == "relu"
        for node in graph.nodes
    )


@pytest.fixture
def uninitialised(monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights stay as allocated, so that the largest models take neither time nor memory."""
    for name in ("kaiming_uniform_", "kaiming_normal_", "normal_", "trunc_normal_", "xavier_uniform_", "uniform_"):
        monkeypatch.setattr(nn.init, name, lambda tensor, *args, **kwargs: tensor)  # noqa: ARG005


@pytest.mark.filterwarnings("ignore::captum_lipschitz.errors.CaptumLipschitzWarning")
@pytest.mark.usefixtures("uninitialised")
@pytest.mark.parametrize("name", torchvision.models.list_models(module=torchvision.models))
def test_every_torchvision_classifier(name: str) -> None:
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **extra)
    relus = sum(type(module) is nn.ReLU for module in model.modules())
    functional = _relus_in_graph(model)
    if functional:
        with pytest.raises(UnreachableActivationError, match="Nothing was replaced"):
            replace_activations(model)
        assert sum(type(module) is nn.ReLU for module in model.modules()) == relus
    else:
        replace_activations(model)
        assert not any(type(module) is nn.ReLU for module in model.modules())
        assert sum(isinstance(module, HalfHuberReLU) for module in model.modules()) == relus
