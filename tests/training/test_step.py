"""StepRegularizer: the explicit loss's gradients from a step that knows nothing of the penalty, or an error."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, seeds
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnsupportedLossError, UnsupportedTrainingError
from captum_lipschitz.training import StepRegularizer


def _network(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(2, 5, 3, padding=1), nn.GELU(), nn.Flatten(), nn.Linear(125, 4)).double()


def _regularizer(every: int = 1) -> LipschitzRegularizer:
    strength = AdaptiveStrength(target_loss=2.0, initial=30.0)
    return LipschitzRegularizer(strength=strength, every=every, generator=torch.Generator().manual_seed(3))


class _Dressed(nn.Module):
    """A network whose logits come in one of the forms of host tools."""

    def __init__(self, form: str) -> None:
        super().__init__()
        self.net = _network()
        self.form = form

    def forward(self, *, pixel_values: Tensor) -> Any:
        logits = self.net(pixel_values)
        if self.form == "attribute":
            return SimpleNamespace(logits=logits)
        return {"logits": logits} if self.form == "mapping" else logits


def _logits(answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    found = answer["logits"] if isinstance(answer, dict) else answer.logits
    assert isinstance(found, Tensor)
    return found


def _explicit(network: nn.Module, inputs: Tensor, labels: Tensor, factor: float, smoothing: float = 0) -> Tensor:
    leaf = inputs.clone().requires_grad_()
    logits = network(leaf)
    task_loss = F.cross_entropy(logits, labels, label_smoothing=smoothing)
    return factor * _regularizer()(logits, leaf, labels, task_loss=task_loss).loss


def _flat_gradient(module: nn.Module) -> Tensor:
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return torch.cat(gradients)


@given(seeds, st.sampled_from([1.0, 0.25, 4096.0]), st.sampled_from(["tensor", "attribute", "mapping"]), st.booleans())
def test_the_gradients_are_those_of_the_explicit_loss(seed: int, factor: float, form: str, told: bool) -> None:
    inputs, labels = build_batch(seed, 6)
    factor = 1.0 if told else factor  # a loss with named labels is taken as it is
    plain, host = _network(), _Dressed(form)
    _explicit(plain, inputs, labels, factor).backward()
    step = StepRegularizer(_regularizer(), {"body": nn.Flatten(), "net": host})
    with step.watching():
        loss = factor * F.cross_entropy(_logits(host(pixel_values=inputs)), labels)
    step.add_penalty(loss, labels if told else None).backward()
    torch.testing.assert_close(_flat_gradient(host), _flat_gradient(plain), rtol=1e-8, atol=1e-10 * factor)
    assert step.last is not None
    torch.testing.assert_close(step.last.network(inputs), _logits(host(pixel_values=inputs)))
    assert step.last.labels.equal(labels)
    assert step.last.inputs.equal(inputs)
    assert not inputs.requires_grad


def test_a_loss_of_another_form_needs_labels() -> None:
    inputs, labels = build_batch(0, 6)
    plain, host = _network(), _network()
    _explicit(plain, inputs, labels, 1.0, smoothing=0.1).backward()
    step = StepRegularizer(_regularizer(), {"net": host}, step="my_step")
    with step.watching():
        loss = F.cross_entropy(host(inputs), labels, label_smoothing=0.1)
    step.add_penalty(loss, labels).backward()
    torch.testing.assert_close(_flat_gradient(host), _flat_gradient(plain))
    with step.watching():
        loss = F.cross_entropy(host(inputs), labels, label_smoothing=0.1)
    with pytest.raises(UnsupportedLossError, match=r"my_step: .* say where they are"):
        step.add_penalty(loss)


def test_a_skipped_step_returns_the_loss_itself() -> None:
    inputs, labels = build_batch(0, 6)
    host = _network()
    step = StepRegularizer(_regularizer(every=2), {"net": host})
    totals = []
    for _ in range(2):
        with step.watching():
            loss = F.cross_entropy(host(inputs), labels)
        totals.append((step.add_penalty(loss), loss))
    assert totals[0][0] > totals[0][1]
    assert totals[1][0] is totals[1][1]


class _Body(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(2, 5, 3, padding=1).double()

    def forward(self, images: Tensor) -> Tensor:
        return F.gelu(self.convolution(images))


@pytest.mark.parametrize("frozen", [False, True])
def test_a_head_is_not_taken_for_the_network(frozen: bool) -> None:
    images, labels = build_batch(0, 6)
    body, head = _Body(), nn.Sequential(nn.Flatten(), nn.Linear(125, 4)).double()
    step = StepRegularizer(_regularizer(), {"body": body, "head": head}, step="my_step")
    with step.watching():
        with torch.set_grad_enabled(not frozen):
            features = body(images)
        loss = F.cross_entropy(head(features), labels)
    with pytest.raises(UnsupportedTrainingError, match=r"my_step: .* computed from: body, head\."):
        step.add_penalty(loss)
    named = StepRegularizer(_regularizer(), {"head": head})  # who names the head means the features
    with named.watching():
        loss = F.cross_entropy(head(body(images).detach()), labels)
    assert named.add_penalty(loss) > loss


def test_the_whole_run_before_without_gradients_is_no_body() -> None:
    images, labels = build_batch(0, 6)
    host = _Dressed("tensor")
    step = StepRegularizer(_regularizer(), {"whole": host, "net": host.net})
    for network in (lambda x: host(pixel_values=x), host.net):
        with step.watching():
            with torch.no_grad():
                host(pixel_values=images)  # pseudo-labels, say
            loss = F.cross_entropy(network(images), labels)
        assert step.add_penalty(loss) > loss


class _Two(nn.Module):
    """Takes a second floating argument, by position or by name."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _network()

    def forward(self, table: Tensor, images: Tensor, *, scale: float = 1.0) -> Tensor:
        logits: Tensor = scale * self.net(images) + table
        return logits


def test_of_several_inputs_one_has_to_be_named() -> None:
    images, labels = build_batch(0, 6)
    table = torch.rand(6, 4, dtype=torch.float64)
    host = _Two()
    step = StepRegularizer(_regularizer(), {"net": host})
    with (
        pytest.raises(UnsupportedTrainingError, match=r"_Two: expected one floating input.* 1 of shape \(6, 2, 5, 5\)"),
        step.watching(),
    ):
        host(table, images)
    for call in (lambda: host(table, images, scale=2.0), lambda: host(table, images=images, scale=2.0)):
        with step.watching(images):
            logits = call()
        step.add_penalty(F.cross_entropy(logits, labels))
        assert step.last is not None
        assert step.last.inputs.equal(images)
        torch.testing.assert_close(step.last.network(images), logits)
    with step.watching(images):
        loss = F.cross_entropy(host(table, images + 0), labels)
    with pytest.raises(UnsupportedTrainingError, match="computed from: none"):
        step.add_penalty(loss)


@pytest.mark.parametrize("calls", [0, 2])
def test_not_one_call_is_refused(calls: int) -> None:
    inputs, labels = build_batch(0, 6)
    host = _network()
    step = StepRegularizer(_regularizer(), {"net": host}, step="my_step")
    with step.watching():
        logits = host(inputs).detach().requires_grad_() if calls == 0 else host(inputs) + host(inputs)
        loss = F.cross_entropy(logits, labels)
    with pytest.raises(UnsupportedTrainingError, match=r"my_step: .* computed from: (none|net, net)\."):
        step.add_penalty(loss)
    assert step.last is None


def test_a_loss_of_an_earlier_step_is_not_taken_for_this_ones() -> None:
    inputs, labels = build_batch(0, 6)
    host = _network()
    step = StepRegularizer(_regularizer(), {"net": host})
    with step.watching():
        loss = F.cross_entropy(host(inputs), labels)
    step.add_penalty(loss)
    with pytest.raises(UnsupportedTrainingError, match="computed from: none"):
        step.add_penalty(loss)


def test_networks_that_cannot_be_watched() -> None:
    with pytest.raises(InvalidInputError, match="networks: expected at least one"):
        StepRegularizer(_regularizer(), {})
    with pytest.raises(InvalidTypeError, match=r"networks: expected an nn\.Module as 'net', got function"):
        StepRegularizer(_regularizer(), {"net": _network})  # type: ignore[dict-item]


class _OwnLoss(_Dressed):
    """Returns a loss of its own, and copies of the logits, as a host does in mixed precision."""

    def forward(self, *, pixel_values: Tensor, labels: Tensor | None = None) -> Any:  # type: ignore[override]
        logits = self.net(pixel_values)
        own = {} if labels is None else {"loss": F.cross_entropy(logits, labels)}
        return {**own, "logits": logits.clone()}


@pytest.mark.parametrize("factor", [1.0, 0.25])
def test_a_loss_that_the_network_computed_from_the_logits_that_it_returned_copies_of(factor: float) -> None:
    network, images = _OwnLoss("mapping"), torch.rand(6, 2, 5, 5, dtype=torch.float64)
    labels = torch.arange(6) % 4
    step = StepRegularizer(_regularizer(), {"net": network})
    with step.watching():
        network(pixel_values=images, labels=labels)["loss"].detach()  # one that the loss does not come from
        loss = factor * network(pixel_values=images, labels=labels)["loss"]
    found = torch.autograd.grad(step.add_penalty(loss / factor, labels), list(network.parameters()))
    expected = torch.autograd.grad(_explicit(network.net, images, labels, 1.0), list(network.parameters()))
    assert all(torch.allclose(one, other, rtol=1e-10) for one, other in zip(found, expected, strict=True))
    with step.watching():
        loss = network(pixel_values=images, labels=labels)["loss"]
    with pytest.raises(UnsupportedLossError, match=r"computed by net itself, .* say where they are, labels="):
        step.add_penalty(loss)
