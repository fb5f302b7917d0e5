"""AdversarialTraining: the published attack on the chosen images, the others and the model untouched."""

from __future__ import annotations

import copy

import pytest
import torch
from adversaries import ATTACKS, FIXED, batch, chosen, generator, network
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from oracles import published_training_attack
from strategies import build_batch, seeds
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import (
    AdaptiveStrength,
    LipschitzRegularizer,
    MinimumNormAttack,
    PaperAttack,
    attach_regularizer,
)
from captum_lipschitz.attacks import Attack
from captum_lipschitz.attacks.base import Found
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.training.adversarial import AdversarialTraining
from captum_lipschitz.training.attach import uncounted


@given(seeds, st.sampled_from([0.02, 0.1, 0.5]), st.booleans())
def test_the_chosen_images_are_those_of_the_published_loop(seed: int, rho: float, minimal: bool) -> None:
    model = network(seed)
    inputs, labels = batch(model, seed)
    attack = PaperAttack(
        mode="minimal" if minimal else "fixed", steps=7, rho=rho, momentum=0.0, objective="cross_entropy"
    )
    adversary = AdversarialTraining(attack=attack, generator=generator(seed))
    answer = adversary(model, inputs, labels)
    rows = chosen(seed, len(inputs))
    if rows.sum() > 1:  # a single one takes two of the batch along
        slow = published_training_attack(
            copy.deepcopy(model), inputs[rows], labels[rows], rho=rho, n_steps=7, minimal=minimal
        )
        torch.testing.assert_close(answer[rows], slow, rtol=1e-9, atol=1e-9)
    assert torch.equal(answer[~rows], inputs[~rows])


def test_the_published_loop_has_every_kind_of_image() -> None:
    """What the oracle above was held against: found, not found, and wrong before."""
    model = network()
    inputs, labels = batch(model, 0, 24)
    attack = PaperAttack(steps=7, rho=0.02, momentum=0.0, objective="cross_entropy")
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    answer = adversary(model, inputs, labels)
    slow = published_training_attack(copy.deepcopy(model), inputs, labels, rho=0.02, n_steps=7, minimal=True)
    torch.testing.assert_close(answer, slow, rtol=1e-9, atol=1e-9)
    replaced = (answer != inputs).flatten(1).any(1)
    assert torch.equal(adversary.last_replaced, replaced)
    assert 0 < int(replaced.sum()) < 23
    assert not replaced[0]
    sizes = (answer - inputs).square().flatten(1).mean(1).sqrt()
    assert float(sizes.max()) <= 0.02


def test_the_statistics_are_the_batchs_or_the_running_ones() -> None:
    model = network()
    inputs, labels = batch(model, 1)
    answers = [
        AdversarialTraining(probability=1.0, attack=FIXED, batch_statistics=own)(model, inputs, labels)
        for own in (True, False)
    ]
    assert not torch.allclose(*answers)
    slow = published_training_attack(copy.deepcopy(model).eval(), inputs, labels, rho=0.05, n_steps=7, minimal=False)
    torch.testing.assert_close(answers[1], slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("attack", [MinimumNormAttack(effort="fast"), PaperAttack(steps=20, rho=0.5)])
@pytest.mark.parametrize("criterion", ["misclassified", "below_chance"])
def test_without_batch_statistics_it_is_the_attack_itself(attack: Attack, criterion: str) -> None:
    model = network()
    inputs, labels = batch(model, 2)
    adversary = AdversarialTraining(attack=attack, criterion=criterion, batch_statistics=False, probability=1.0)
    answer = adversary(model, inputs, labels)
    expected = attack(model, inputs, labels, criterion)
    assert bool((expected.distances > 0).any())
    torch.testing.assert_close(answer, expected.adversarial_inputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attack", ATTACKS, ids=["minimal", "fixed", "fast"])
@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize(("calls", "error"), [(99, None), (0, RuntimeError), (3, RuntimeError), (3, KeyboardInterrupt)])
def test_it_leaves_no_trace(
    attack: Attack | None, batch_statistics: bool, calls: int, error: type[BaseException] | None
) -> None:
    model = half_frozen(Breaking(network(dropout=0.3), calls, error("broken") if error else RuntimeError()))
    model.model[1].train()  # its statistics would move
    model.model[3].eval()  # a frozen one must stay so
    inputs, _ = build_batch(3, 10)
    labels = copy.deepcopy(model.model).train(batch_statistics)(inputs).argmax(1)
    inputs.requires_grad_()
    inputs.grad = torch.ones_like(inputs)
    adversary = AdversarialTraining(attack=attack, batch_statistics=batch_statistics, probability=1.0)
    state = adversary.state_dict()
    before = snapshot(model, inputs)
    if error is None:
        answer = adversary(model, inputs, labels)
        assert not answer.requires_grad
        assert answer.dtype == inputs.dtype
        assert not torch.equal(answer, inputs)
        assert not torch.equal(state["generator"], adversary.state_dict()["generator"])
    else:
        with pytest.raises(error, match="broken"):
            adversary(model, inputs, labels)
        assert torch.equal(state["generator"], adversary.state_dict()["generator"])
    assert_unchanged(before, snapshot(model, inputs))


def test_a_graph_in_flight_stays_valid() -> None:
    model = network()
    inputs, labels = batch(model, 0)
    loss = F.cross_entropy(model(inputs), labels)
    AdversarialTraining(probability=1.0)(model, inputs, labels)
    loss.backward()
    other = network()
    F.cross_entropy(other(inputs), labels).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_nothing_found_stays_clean_to_the_bit() -> None:
    model = network().float()
    inputs, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in batch(network(), 4))
    inputs[0, 0, 0, 0] = -0.0
    attack = PaperAttack(steps=7, rho=1e-7, momentum=0.0)
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    answer = adversary(model, inputs, labels)
    assert torch.equal(answer.view(torch.int32), inputs.view(torch.int32))
    assert answer.data_ptr() != inputs.data_ptr()
    assert not adversary.last_replaced.any()
    fixed = PaperAttack(mode="fixed", steps=7, rho=1e-4, momentum=0.0)
    replaced = AdversarialTraining(attack=fixed, probability=1.0)(model, inputs, labels)
    assert (replaced != inputs).flatten(1).any(1).all()  # found or not, those that were wrong before too


class _Loud(Attack):
    """Finds nothing, and answers with perturbations all the same."""

    def search(self, problem: Problem) -> Found:
        found = torch.zeros(len(problem), dtype=torch.bool)
        return Found(torch.ones_like(problem.inputs), found, found.long())


def test_what_an_attack_does_not_claim_is_not_used() -> None:
    model = network()
    inputs, labels = batch(model, 4)
    assert torch.equal(AdversarialTraining(attack=_Loud(), probability=1.0)(model, inputs, labels), inputs)


def test_where_no_image_is_chosen_nothing_is_run() -> None:
    model = Breaking(network(), 0, RuntimeError("was run"))
    inputs, labels = build_batch(0, 6)
    assert torch.equal(AdversarialTraining(probability=0.0)(model, inputs, labels), inputs)


def test_half_of_the_images_arechosen() -> None:
    model = nn.Linear(3, 2)
    adversary = AdversarialTraining(
        attack=PaperAttack(mode="fixed", steps=1, rho=0.1, momentum=0.0), generator=generator()
    )
    inputs, labels = torch.rand(4000, 3, generator=generator()), torch.zeros(4000, dtype=torch.long)
    adversary(model, inputs, labels)
    assert abs(float(adversary.last_replaced.double().mean()) - 0.5) < 4 * 0.5 / 4000**0.5


def test_the_generator_decides_everything_and_a_checkpoint_continues_identically() -> None:
    model = network(dropout=0.5)
    inputs, labels = batch(model, 5)
    one, other = (AdversarialTraining(generator=generator(7)) for _ in range(2))
    torch.manual_seed(1)
    first = [one(model, inputs, labels) for _ in range(4)]
    torch.manual_seed(2)
    second = [other(model, inputs, labels) for _ in range(2)]
    resumed = AdversarialTraining()
    resumed.load_state_dict(other.state_dict())
    second += [resumed(model, inputs, labels) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    with pytest.raises(InvalidInputError, match=r"missing \['generator'\]"):
        resumed.load_state_dict({})


def test_the_attack_does_not_use_the_masks_that_training_draws_next() -> None:
    masks = []
    model = network(dropout=0.5)
    model[3].register_forward_hook(lambda _module, _args, output: masks.append(output.detach() == 0))  # type: ignore[index]
    inputs, labels = batch(network(), 5)
    masks.clear()
    AdversarialTraining(probability=1.0)(model, inputs, labels)
    during = len(masks)
    model(inputs)
    assert during == 8
    live = ~torch.stack([mask.all(0) for mask in masks]).any(0)  # HalfHuberReLU has zeros of its own
    assert not any(torch.equal(masks[-1][:, live], mask[:, live]) for mask in masks[:during])


def _step(model: nn.Module, regularizer: LipschitzRegularizer, inputs: Tensor, labels: Tensor) -> None:
    leaf = inputs.requires_grad_()
    logits = model(leaf)
    regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss.backward()


def _regularizer() -> LipschitzRegularizer:
    return LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), generator=generator(3))


def test_it_composes_with_the_penalty() -> None:
    model, other = network(), network()
    inputs, labels = batch(model, 6)
    _step(model, _regularizer(), AdversarialTraining(generator=generator(1))(model, inputs, labels), labels)
    rows = chosen(1, len(inputs))
    by_hand = inputs.clone()
    by_hand[rows] = published_training_attack(
        copy.deepcopy(other), inputs[rows], labels[rows], rho=0.1, n_steps=7, minimal=True
    )
    assert not torch.equal(by_hand, inputs)
    _step(other, _regularizer(), by_hand, labels)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_an_attached_regularizer_does_not_count_the_attack() -> None:
    attached, explicit = network(), network()
    inputs, labels = batch(explicit, 6)
    regularizer, other = _regularizer(), _regularizer()
    handle = attach_regularizer(attached, regularizer)
    for seed in range(2):
        mixed = AdversarialTraining(generator=generator(seed))(attached, inputs, labels)
        assert regularizer.state_dict()["steps"] == seed
        F.cross_entropy(attached(mixed), labels).backward()
        assert regularizer.state_dict()["steps"] == seed + 1
        _step(explicit, other, AdversarialTraining(generator=generator(seed))(explicit, inputs, labels), labels)
    for a, b in zip(attached.parameters(), explicit.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9)
    assert handle.last_output is not None


def test_uncounted_ends_with_an_error_too() -> None:
    model = network()
    handle = attach_regularizer(model, _regularizer())
    inputs, labels = batch(network(), 6)
    with uncounted():
        F.cross_entropy(model(inputs), labels).backward()
    with pytest.raises(TypeError, match="conv2d"), uncounted():
        model(None)
    assert handle.last_output is None
    F.cross_entropy(model(inputs), labels).backward()
    assert handle.last_output is not None
