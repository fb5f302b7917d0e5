"""The penalty over several steps of timm's loop: accumulation, optimisers, averaged weights, ramps."""

import copy
import warnings

import pytest
import torch
from networks import (
    CLASSES,
    ROUNDING,
    create,
    data,
    explicit_gradient,
    flat_gradient,
    flat_parameters,
    generator,
    relative_error,
)
from tasks import adaptive, batches_of, gradient_of, loop, network, one_pass, plain_task, regularizer, task_of
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask
from timm.utils import NativeScaler
from torch import nn
from torch.nn import functional as F

from captum_lipschitz import HalfHuberReLU, LipschitzRegularizer
from captum_lipschitz.errors import (
    CaptumLipschitzWarning,
    UnsupportedTrainingError,
)
from captum_lipschitz.training import LinearRamp
from captum_lipschitz_timm import regularize_task, with_half_huber


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("scaled", [False, True])
def test_accumulation_with_a_shorter_last_step(every, scaled):
    model = network()
    by_hand = copy.deepcopy(model)
    task = task_of(model, strength=adaptive(), accumulation_steps=2, every=every)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = NativeScaler(device="cpu") if scaled else None
    batches = batches_of(5)
    found = []
    for _ in range(2):  # two epochs of 2 + 2 + 1 batches
        found += loop(task, optimizer, batches, accumulate=2, scaler=scaler)[0]

    one = LipschitzRegularizer(strength=adaptive(), generator=generator(), accumulation_steps=None, every=every)
    optimizer = torch.optim.SGD(by_hand.parameters(), lr=0.01)
    expected = []
    for group in (batches[:2], batches[2:4], batches[4:]) * 2:
        for images, labels in group:
            leaf = images.clone().requires_grad_()
            logits = by_hand(leaf)
            output = one(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels))
            (output.loss / len(group)).backward()
            expected.append(float(output.strength))
        optimizer.step()
        optimizer.zero_grad()
        one.step()
    assert found == pytest.approx(expected, rel=1e-5)
    assert len(set(expected)) > 3
    # Two trainings of several steps part by more than the rounding of one.
    assert relative_error(flat_parameters(model), flat_parameters(by_hand)) < 1e-5


@pytest.mark.parametrize(
    "name", ["sgd", "adamw", "lamb", "lion", "adafactor", "adopt", "adahessian", "lookahead_adamw", "muon", "nadamw"]
)
def test_optimisers_are_noticed(name):
    """A shorter last step is told by the parameters' version, which an optimiser must move."""
    layer = nn.Linear(3, 2)
    optimizer = create_optimizer_v2(layer, opt=name, lr=0.1)
    for step in range(2):
        loss = layer(torch.rand(4, 3)).square().sum()
        loss.backward(create_graph=getattr(optimizer, "is_second_order", False))
        before = sum(parameter._version for parameter in layer.parameters())
        optimizer.step()
        moved = sum(parameter._version for parameter in layer.parameters()) != before
        assert moved or (name, step) == ("adopt", 0)  # whose first step leaves the parameters as they are
        optimizer.zero_grad()


def test_second_order_optimizers():
    model, (images, labels) = network(), data()
    expected = explicit_gradient(model, images, labels, F.cross_entropy, strength=30.0)
    task_of(model)(images, labels)["loss"].backward(create_graph=True)
    assert relative_error(flat_gradient(model), expected) < ROUNDING


def test_skipped_steps_are_the_plain_loss():
    model, (images, labels) = network(), data()
    task = task_of(model, every=2)
    first, second = gradient_of(task, images, labels), gradient_of(task, images, labels)
    assert float(first[1]["penalty"]) > 0
    assert float(second[1]["penalty"]) == 0
    expected = explicit_gradient(model, images, labels, F.cross_entropy, strength=0.0)
    assert relative_error(second[0], expected) < ROUNDING


def test_averaged_weights_follow():
    task = task_of(network())
    task.setup_ema(decay=0.5)
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.05)
    start = flat_parameters(task.get_trainable_module())
    loop(task, optimizer, batches_of(1), accumulate=1)
    now = flat_parameters(task.get_trainable_module())
    averaged = flat_parameters(task.get_eval_model(ema=True))
    torch.testing.assert_close(averaged, (start + now) / 2, rtol=1e-6, atol=1e-6)
    images, _ = data()
    task.eval()
    assert task.get_eval_model(ema=True)(images).shape == (8, CLASSES)
    assert "captum_lipschitz" not in task.get_task_state(ema=True)


@pytest.mark.parametrize("wrapped", [False, True])
def test_averaged_weights_of_a_network_with_other_activations_are_refused(wrapped):
    model = create("test_resnet")
    task = ClassificationTask(model, nn.CrossEntropyLoss(), verbose=False)
    if wrapped:  # the class has its regularizer before the networks part
        task = task_of(model)
    task.setup_ema(decay=0.5)
    with_half_huber(model)
    message = r"but \d+ differ: act1 is HalfHuberReLU\(delta=0.5\) in the trained network and ReLU"
    with pytest.raises(UnsupportedTrainingError, match=message):
        task.update_ema() if wrapped else regularize_task(task, regularizer())
    if not wrapped:
        assert type(task) is ClassificationTask


def test_averaged_weights_of_another_delta_are_refused():
    task = plain_task()
    task.setup_ema(decay=0.5)
    for module in task.get_trainable_module(ema=True).module.modules():
        if isinstance(module, HalfHuberReLU):
            module.delta = 0.25
    with pytest.raises(UnsupportedTrainingError, match=r"and HalfHuberReLU\(delta=0.25\) in the averaged one"):
        regularize_task(task, regularizer())


def test_regularizing_after_averaged_weights_is_the_order_of_the_readme():
    task, (images, _) = plain_task(), data()
    task.setup_ema(decay=0.0)
    regularize_task(task, regularizer())
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.05)
    loop(task, optimizer, batches_of(1), accumulate=1)
    trained, averaged = task.get_trainable_module().eval(), task.get_eval_model(ema=True)
    with torch.no_grad():
        torch.testing.assert_close(averaged(images), trained(images))


@pytest.mark.parametrize(("given", "real", "passes"), [(1, 2, 16), (1, 20, 9), (2, 4, 31)])
def test_accumulation_steps_that_are_forgotten_are_warned_of_once(given, real, passes):
    task = task_of(network(), accumulation_steps=given)
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.001)
    batches = [(images[:2], labels[:2]) for images, labels in batches_of(passes + 24)]
    warned = []
    for index, batch in enumerate(batches, start=1):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", CaptumLipschitzWarning)
            one_pass(task, optimizer, batch, update=index % real == 0)
        text = f"accumulation_steps: the regularizer has {given},"
        warned += [index for one in caught if str(one.message).startswith(text)]
    assert warned == [passes]


@pytest.mark.parametrize(("given", "skipped"), [(1, 7), (3, 0)])
def test_accumulation_steps_that_are_right_are_not_warned_of(given, skipped):
    """Also where a gradient scaler skips the first updates."""
    task = task_of(network(), accumulation_steps=given)
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.001)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CaptumLipschitzWarning)
        for index, (images, labels) in enumerate(batches_of(30)):
            update = (index + 1) % given == 0 and index >= skipped
            one_pass(task, optimizer, (images[:2], labels[:2]), update=update)
    assert [str(one.message) for one in caught if issubclass(one.category, CaptumLipschitzWarning)] == []


def test_a_ramp_moves_with_optimiser_steps():
    task = task_of(network(), strength=LinearRamp(initial=10.0, final=30.0, steps=2), accumulation_steps=2)
    optimizer = torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.01)
    strengths, _ = loop(task, optimizer, batches_of(6), accumulate=2)
    assert strengths[0] == strengths[1]
    assert strengths[2] == strengths[3] != strengths[0]
    assert strengths[4] == 30.0
