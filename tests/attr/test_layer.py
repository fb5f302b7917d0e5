"""LayerAdversarialAttribution: a change of a layer's activations."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from contracts import Breaking, assert_unchanged, snapshot
from hypothesis import given
from hypothesis import strategies as st
from strategies import Case, build_batch, build_convolutional, cases
from torch import Tensor, nn

from captum_lipschitz import RMSE, AdversarialAttribution, LayerAdversarialAttribution
from captum_lipschitz.errors import InvalidInputError


class Head(nn.Module):
    """What follows the convolution of ``strategies.build_convolutional``."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.rest = model[1:]

    def forward(self, activations: Tensor) -> Tensor:
        return self.rest(activations)


@given(cases(min_size=2), st.sampled_from([None, 1, 2]), st.booleans())
def test_it_is_the_explanation_of_what_follows_the_layer(case: Case, size: int | None, to_input: bool) -> None:
    assert isinstance(case.model, nn.Sequential)
    activations = case.model[0](case.inputs).detach()
    settings = {"n_steps": 8, "bounds": (-9.0, 9.0), "scale": torch.linspace(1, 2, 5), "rho": 0.2}
    expected = AdversarialAttribution(Head(case.model)).attribute(activations, case.labels, **settings)
    method = LayerAdversarialAttribution(case.model, case.model[1] if to_input else case.model[0])
    change, delta = method.attribute(
        case.inputs, case.labels, attribute_to_layer_input=to_input, internal_batch_size=size,
        return_convergence_delta=True, **settings,
    )  # fmt: skip
    torch.testing.assert_close(change, expected, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(delta, RMSE(settings["scale"]).size(change) - 0.2)
    moved = method.compute_log_odds_change(
        change, case.inputs, case.labels, attribute_to_layer_input=to_input, internal_batch_size=size
    )
    there = AdversarialAttribution(Head(case.model)).compute_log_odds_change(change, activations, case.labels)
    torch.testing.assert_close(moved, there, rtol=1e-6, atol=1e-9)
    assert (moved > 0).all()


class Branches(nn.Module):
    """Two layers side by side, one of them with two outputs, and a sum that weighs them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Identity(), Twice()

    def forward(self, inputs: Tensor) -> Tensor:
        a, b = self.two(inputs)
        return torch.stack([self.one(inputs).sum(1) + 2 * a.sum(1) + 3 * b.sum(1), inputs.sum(1)], 1)


class Twice(nn.Module):
    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        return inputs, inputs[:, :2]


def test_several_layers_and_outputs_share_a_budget_or_have_their_own() -> None:
    inputs = torch.zeros(3, 4, dtype=torch.float64)
    model = Branches()
    method = LayerAdversarialAttribution(model, [model.one, model.two])
    one, (a, b) = method.attribute(inputs, target=0, n_steps=400, norm="l2", rho=1.0, objective="output")
    direction = torch.tensor([1.0] * 4 + [2.0] * 4 + [3.0] * 2, dtype=torch.float64)
    expected = direction / direction.norm()
    torch.testing.assert_close(torch.cat([one, a, b], 1), expected.expand(3, -1), rtol=0.03, atol=0)
    one, (a, b) = method.attribute(inputs, 0, n_steps=400, norm="l2", rho=(1.0, 0.0, 0.5), objective="output")
    torch.testing.assert_close(one.norm(dim=1), torch.ones(3).double(), rtol=0.03, atol=0)
    assert not a.any()
    torch.testing.assert_close(b.norm(dim=1), torch.full((3,), 0.5).double(), rtol=0.03, atol=0)
    single = LayerAdversarialAttribution(model, model.two).attribute(inputs, 0, n_steps=2)
    assert isinstance(single, tuple)
    assert [tuple(part.shape) for part in single] == [(3, 4), (3, 2)]


def test_tokens_are_explained_at_their_embedding() -> None:
    torch.manual_seed(0)
    embedding, head = nn.Embedding(20, 4), nn.Linear(6 * 4, 3)
    model = nn.Sequential(embedding, nn.Flatten(), head)
    tokens = torch.randint(20, (5, 6))
    mask = (tokens != 0)[..., None]
    change = LayerAdversarialAttribution(model, embedding).attribute(tokens, 1, mask=mask)
    plain = AdversarialAttribution(nn.Sequential(nn.Flatten(), head)).attribute(embedding(tokens), 1, mask=mask)
    torch.testing.assert_close(change, plain)
    assert not change[tokens == 0].any()


@pytest.mark.parametrize("error", [None, RuntimeError("broken"), KeyboardInterrupt()])
def test_leaves_no_trace(error: BaseException | None) -> None:
    inputs, labels = build_batch(1, 4)
    inner = build_convolutional(2)
    model = Breaking(inner, 100 if error is None else 3, error or RuntimeError()).train()
    before = snapshot(model, inputs, labels)
    method = LayerAdversarialAttribution(model, inner[0])
    if error is None:
        method.attribute(inputs, labels, n_steps=4)
    else:
        with pytest.raises(type(error)):
            method.attribute(inputs, labels, n_steps=4)
    assert_unchanged(before, snapshot(model, inputs, labels))


def test_layers_that_cannot_be_changed_are_refused() -> None:
    inputs, labels = build_batch(0, 3)
    twice = nn.Tanh()
    model = nn.Sequential(twice, nn.Flatten(), nn.Linear(50, 4), twice).double()
    with pytest.raises(InvalidInputError, match="layer: expected one that runs once in a forward pass, got Tanh"):
        LayerAdversarialAttribution(model, twice).attribute(inputs, labels)
    mixing = nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (3, 50)), nn.Linear(50, 4)).double()
    with pytest.raises(InvalidInputError, match="activations of one row for each of 3 examples"):
        LayerAdversarialAttribution(mixing, mixing[0]).attribute(inputs, labels)
    with pytest.raises(InvalidInputError, match="layer: expected different layers"):
        LayerAdversarialAttribution(mixing, [mixing[2], mixing[2]]).attribute(inputs, labels)
    for layers in (nn.Tanh(), [mixing[2], nn.Tanh()]):
        with pytest.raises(InvalidInputError, match="expected one that runs in a forward pass, got Tanh"):
            LayerAdversarialAttribution(mixing, layers).attribute(inputs, labels)
    sequences = torch.randn(3, 5, 4)
    recurrent = nn.LSTM(4, 6, batch_first=True)
    with pytest.raises(InvalidInputError, match="gives a tensor or a tuple of tensors, got LSTM with Tensor, tuple"):
        LayerAdversarialAttribution(lambda x: recurrent(x)[0][:, -1], recurrent).attribute(sequences, 0)
    named = nn.Linear(4, 2)
    with pytest.raises(InvalidInputError, match=r"takes a tensor .* got Linear with nothing"):
        LayerAdversarialAttribution(lambda x: named(input=x[:, 0]), named).attribute(
            sequences, 0, attribute_to_layer_input=True
        )


class Named(NamedTuple):
    hidden: Tensor
    cell: Tensor


class NamedLayer(nn.Module):
    def forward(self, inputs: Tensor) -> Named:
        return Named(inputs, 2 * inputs)


def test_named_tuples_stay_named_and_inputs_changed_in_place_start_anew() -> None:
    layer = NamedLayer()
    inputs = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    kept = inputs.clone()

    def forward(x: Tensor) -> Tensor:
        x -= 0.5
        found = layer(x)
        return torch.stack([found.hidden.square().sum(1), found.cell.sum(1)], 1)

    hidden, cell = LayerAdversarialAttribution(forward, layer).attribute(inputs, 0, rho=(0.1, 0.0), n_steps=100)
    assert torch.equal(inputs, kept)
    assert not cell.any()
    # Its log-odds grow fastest along the activations themselves, which are the inputs less a half, once.
    cosine = nn.functional.cosine_similarity(hidden, kept - 0.5)
    torch.testing.assert_close(cosine, torch.ones(3), rtol=1e-4, atol=0)
