"""RegularizedModule: the explicit loss's gradients, the wrapped model's names, nothing formed where nothing trains."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor, nn
from torch.nn import functional as F
from versions import compiles

from captum_lipschitz import LipschitzRegularizer, RegularizedModule, RegularizedOutput, lipschitz_penalty
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training import PenaltyDraws, draw


def _regularizer(**settings: Any) -> LipschitzRegularizer:
    return LipschitzRegularizer(strength=3.0, generator=torch.Generator().manual_seed(5), **settings)


def _gradients(model: nn.Module) -> list[Tensor]:
    return [p.grad for p in model.parameters() if p.grad is not None]


@given(seeds, st.sampled_from([1, 2]), st.sampled_from([1, 3, "all"]))
def test_the_gradients_are_those_of_the_explicit_loss(seed: int, every: int, draws_per_image: Any) -> None:
    explicit, wrapped = build_convolutional(seed).train(), build_convolutional(seed).train()
    settings = {"every": every, "draws_per_image": draws_per_image}
    one, other = _regularizer(**settings), _regularizer(**settings)
    module = RegularizedModule(wrapped, other)
    for step in range(3):
        inputs, labels = build_batch(seed + step, 6)
        leaf = inputs.clone().requires_grad_()
        with torch.random.fork_rng():
            logits = explicit(leaf)
        output = one(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))
        output.loss.backward()
        logits, penalty = module(inputs, labels)
        other.combine(penalty, task_loss=F.cross_entropy(logits, labels)).loss.backward()
        assert torch.equal(penalty, output.penalty) or not one.due
        assert not inputs.requires_grad
    for a, b in zip(_gradients(wrapped), _gradients(explicit), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)
    for a, b in zip(wrapped.buffers(), explicit.buffers(), strict=True):
        assert torch.equal(a, b)  # batch statistics moved once a step


def test_draws_can_be_given() -> None:
    inputs, labels = build_batch(0, 6)
    draws = draw(6, 4, tandem_probability=0.5, generator=torch.Generator().manual_seed(1))
    regularizer = _regularizer()
    before = regularizer.generator.get_state()
    penalty = RegularizedModule(build_convolutional(1).train(), regularizer)(inputs, labels, draws=[draws]).penalty
    leaf = inputs.clone().requires_grad_()
    model = build_convolutional(1).train()
    model[3].eval()  # dropout
    expected = lipschitz_penalty(model(leaf), leaf, labels, draws=draws)
    assert torch.equal(regularizer.generator.get_state(), before)
    assert penalty.item() > 0
    without = build_convolutional(1).train()
    without[3].eval()
    module = RegularizedModule(without, regularizer)
    module.train()
    without[3].eval()
    torch.testing.assert_close(module(inputs, labels, draws=[draws]).penalty, expected)


def test_its_names_are_the_wrapped_models() -> None:
    model = build_convolutional(1)
    module = RegularizedModule(model, _regularizer())
    assert list(module.state_dict()) == list(model.state_dict())
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in model.named_parameters()]
    assert [name for name, _ in module.named_buffers()] == [name for name, _ in model.named_buffers()]
    assert dict(module.named_parameters(prefix="a")).keys() == dict(model.named_parameters(prefix="a")).keys()
    outer, plain = nn.ModuleDict({"net": module}), nn.ModuleDict({"net": model})
    assert list(outer.state_dict()) == list(plain.state_dict())
    assert outer.state_dict()._metadata.keys() > plain.state_dict()._metadata.keys()
    for name, value in model.state_dict().items():
        assert torch.equal(module.state_dict()[name], value)
    other = RegularizedModule(build_convolutional(2), _regularizer())
    assert not torch.equal(other.state_dict()["0.weight"], model.state_dict()["0.weight"])
    for source, target in ((model, other), (other, build_convolutional(3)), (outer, nn.ModuleDict({"net": other}))):
        state = source.state_dict()
        names = list(state)
        target.load_state_dict(state)
        assert list(state) == names
        assert all(torch.equal(a, b) for a, b in zip(source.parameters(), target.parameters(), strict=True))
    with pytest.raises(RuntimeError, match="Unexpected key"):
        other.load_state_dict({**model.state_dict(), "extra": torch.zeros(1)})
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict({})


class _Versioned(nn.Module):
    """Its first version's weights were half as large."""

    _version = 2

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def _load_from_state_dict(self, state: Any, prefix: str, metadata: Any, *rest: Any) -> None:
        if metadata.get("version", 1) < 2:
            state[prefix + "weight"] = 2 * state[prefix + "weight"]
        super()._load_from_state_dict(state, prefix, metadata, *rest)


def test_versions_of_saved_modules_are_kept() -> None:
    plain = nn.Sequential(_Versioned())
    wrapped = RegularizedModule(nn.Sequential(_Versioned()), _regularizer())
    outer = nn.ModuleDict({"net": RegularizedModule(nn.Sequential(_Versioned()), _regularizer())})
    for source, target in ((plain, wrapped), (wrapped, plain), (wrapped, wrapped), (outer, outer)):
        target.load_state_dict(source.state_dict())
        assert all(bool((p == 1).all()) for p in target.parameters())
    nn.ModuleDict({"net": plain}).load_state_dict(outer.state_dict())
    assert bool((plain[0].weight == 1).all())


def test_entries_whose_names_collide_are_kept_apart() -> None:
    inner = nn.Linear(3, 2)
    inner.model = nn.Linear(2, 2)  # "weight" and "model.weight"
    module = RegularizedModule(inner, _regularizer())
    assert set(module.state_dict()) == {"weight", "bias", "model.weight", "model.bias"}
    outer = nn.ModuleDict({"net": module})
    state = {name: torch.full_like(value, i) for i, (name, value) in enumerate(outer.state_dict().items())}
    outer.load_state_dict(state)
    assert all(torch.equal(outer.state_dict()[name], value) for name, value in state.items())


@compiles
def test_compiling_changes_no_names_and_copies_are_not_compiled() -> None:
    module = RegularizedModule(build_convolutional(1), _regularizer())
    before = list(module.state_dict())
    module.compile(backend="aot_eager")
    assert list(module.state_dict()) == before
    assert [name for name, _ in module.named_children()] == ["model"]
    module.load_state_dict(build_convolutional(2).state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301 (our own)
        assert twin._compiled is None
        assert list(twin.state_dict()) == before


def test_a_model_may_change_its_inputs_in_place() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = build_convolutional(1).eval()

        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = self.inner(inputs.sub_(0.5))
            return output

    inputs, labels = build_batch(0, 6)
    one, other = (_regularizer() for _ in range(2))
    changing, plain = RegularizedModule(InPlace().eval(), one), RegularizedModule(build_convolutional(1), other)
    changing.training = plain.training = True
    found, expected = changing(inputs.clone(), labels), plain(inputs - 0.5, labels)
    torch.testing.assert_close(found.penalty, expected.penalty)


def test_a_penalty_formed_in_time_counts_also_when_the_step_has_ended() -> None:
    regularizer = _regularizer(every=2)
    module = RegularizedModule(build_convolutional(1).train(), regularizer)
    views = [module(*build_batch(seed, 6)) for seed in range(2)]
    loss = torch.ones((), dtype=torch.float64)
    for view in views:
        assert view.penalty > 0
        output = regularizer.combine(view.penalty, task_loss=loss)
        torch.testing.assert_close(output.loss, loss + 2 * 3 * view.penalty)


def test_a_model_with_a_part_called_model_keeps_its_names() -> None:
    inner = nn.ModuleDict({"model": nn.Linear(3, 2), "head": nn.Linear(2, 2)})
    module = RegularizedModule(inner, _regularizer())
    assert list(module.state_dict()) == list(inner.state_dict())
    assert [name for name, _ in module.named_parameters()] == [name for name, _ in inner.named_parameters()]
    state = {name: torch.full_like(value, 7.0) for name, value in inner.state_dict().items()}
    module.load_state_dict(state)
    assert all(bool((p == 7).all()) for p in inner.parameters())


def test_attributes_are_the_wrapped_models() -> None:
    model = build_convolutional(1)
    model.note = "hello"  # type: ignore[assignment]
    module = RegularizedModule(model, _regularizer())
    assert module.note == "hello"
    with pytest.raises(AttributeError, match="nothing"):
        _ = module.nothing
    assert module.training is model.training is False
    assert module.train().model.training is True


def test_copies_have_a_regularizer_of_their_own() -> None:
    module = RegularizedModule(build_convolutional(1).train(), _regularizer(every=2))
    inputs, labels = build_batch(0, 6)
    logits, penalty = module(inputs, labels)
    module.regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):  # noqa: S301 (our own)
        assert twin.regularizer is not module.regularizer
        assert twin.regularizer.state_dict()["steps"] == 1
        assert torch.equal(twin.regularizer.generator.get_state(), module.regularizer.generator.get_state())


@pytest.mark.parametrize("state", ["evaluation", "no_grad", "skipped"])
def test_no_penalty_where_none_is_due(state: str) -> None:
    regularizer = _regularizer(every=2)
    module = RegularizedModule(build_convolutional(1).train(), regularizer)
    inputs, labels = build_batch(0, 6)
    before = regularizer.generator.get_state()
    if state == "evaluation":
        output = module.eval()(inputs)
    elif state == "no_grad":
        with torch.no_grad():
            output = module(inputs)
    else:
        regularizer.combine(torch.zeros(()), task_loss=torch.ones(()))
        output = module(inputs, labels)
        loss = F.cross_entropy(output.logits, labels)
        assert torch.equal(regularizer.combine(output.penalty, task_loss=loss).loss, loss)
    assert isinstance(output, RegularizedOutput)
    assert output.penalty.item() == 0
    assert not output.penalty.requires_grad
    assert torch.equal(regularizer.generator.get_state(), before)


def test_a_sub_batch_is_penalised_as_if_it_stood_alone() -> None:
    inputs, labels = build_batch(0, 8)
    model = build_convolutional(1)  # in evaluation mode images do not touch each other
    module = RegularizedModule(model, _regularizer(), sub_batch=0.25)
    module.training = True
    plain = model(inputs)
    draws = [PenaltyDraws(torch.tensor([1, 2]), torch.tensor([False, True]))]
    generator = torch.Generator().manual_seed(5)
    chosen = torch.randperm(8, generator=generator)[:2]
    output = module(inputs, labels, draws=draws)
    torch.testing.assert_close(output.logits, plain)
    leaf = inputs[chosen].requires_grad_()
    expected = lipschitz_penalty(model(leaf), leaf, labels[chosen], draws=draws[0])
    torch.testing.assert_close(output.penalty, expected)


def test_sub_batches_are_unbiased_where_images_do_not_touch() -> None:
    inputs, labels = build_batch(0, 6)
    model = build_convolutional(1)
    settings = {"draws_per_image": "all"}
    whole = RegularizedModule(model, _regularizer(**settings))
    part = RegularizedModule(model, _regularizer(**settings), sub_batch=1 / 6)
    whole.training = part.training = True
    each = torch.stack([whole(inputs[i : i + 1], labels[i : i + 1]).penalty.detach() for i in range(6)])
    seen = torch.stack([part(inputs, labels).penalty.detach() for _ in range(60)])
    assert all(torch.isclose(value, each, rtol=1e-9).any() for value in seen)
    assert all(torch.isclose(value, seen, rtol=1e-9).any() for value in each)  # each image gets its turn


@pytest.mark.parametrize(("count", "share"), [(3, 0.5), (2, 0.5), (8, 0.1), (5, 0.9)])
def test_no_part_of_a_batch_is_too_small_for_batch_statistics(count: int, share: float) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(50, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).double()
    module = RegularizedModule(model, _regularizer(), sub_batch=share)
    inputs, labels = build_batch(0, count)
    assert module(inputs, labels).penalty > 0


def test_a_refused_sub_batch_draws_nothing() -> None:
    regularizer = _regularizer()
    module = RegularizedModule(build_convolutional(1).train(), regularizer, sub_batch=0.5)
    inputs, labels = build_batch(0, 6)
    before = regularizer.generator.get_state()
    with pytest.raises(InvalidInputError, match="labels: expected classes"):
        module(inputs, labels + 4)
    assert torch.equal(regularizer.generator.get_state(), before)


def test_further_arguments_reach_the_model() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 2)

        def forward(self, inputs: Tensor, factor: float, *, shift: float = 0.0) -> Tensor:
            logits: Tensor = factor * self.linear(inputs) + shift
            return logits

    module = RegularizedModule(Scaled(), _regularizer())
    inputs, labels = torch.rand(4, 3), torch.zeros(4, dtype=torch.long)
    torch.testing.assert_close(module(inputs, labels, 2.0, shift=1.0).logits, 2 * module.linear(inputs) + 1)
    with pytest.raises(InvalidInputError, match="sub_batch: expected a model that takes nothing but inputs"):
        RegularizedModule(Scaled(), _regularizer(), sub_batch=0.5)(inputs, labels, 2.0)


def test_what_cannot_be_used_is_refused() -> None:
    model = build_convolutional(1).train()
    with pytest.raises(InvalidTypeError, match=r"model: expected an nn\.Module, got function"):
        RegularizedModule(lambda x: x, _regularizer())  # type: ignore[arg-type]
    with pytest.raises(InvalidTypeError, match="regularizer: expected a LipschitzRegularizer, got float"):
        RegularizedModule(model, 1.0)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=r"sub_batch: expected a share in \(0, 1\], got 0"):
        RegularizedModule(model, _regularizer(), sub_batch=0)
    inputs, labels = build_batch(0, 6)
    regularizer = _regularizer()
    with pytest.raises(InvalidInputError, match="labels: expected the batch's labels"):
        RegularizedModule(model, regularizer)(inputs)
    before = regularizer.generator.get_state()
    with pytest.raises(InvalidInputError, match=r"labels: expected classes in 0\.\.3"):
        RegularizedModule(model, regularizer)(inputs, labels + 4)
    with pytest.raises(InvalidTypeError, match=r"model: expected logits of shape \(N, C\)"):
        RegularizedModule(nn.Identity(), regularizer)(inputs, labels)
    assert torch.equal(regularizer.generator.get_state(), before)
    with pytest.raises(InvalidTypeError, match="penalty: expected a scalar tensor"):
        regularizer.combine(torch.zeros(2), task_loss=torch.ones(()))
