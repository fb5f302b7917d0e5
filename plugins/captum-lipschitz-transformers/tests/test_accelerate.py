"""A loop of one's own with Accelerate: the penalty is added explicitly, and the gradients are right."""

import copy

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from models import STRENGTH, Images, adaptive, explicit_steps, flat_gradient, regularizer, relative_error, vit
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import DataLoader

from captum_lipschitz.training import RegularizedModule, StepRegularizer
from captum_lipschitz_transformers import LogitsNetwork

ROUNDING = 2e-6


@pytest.fixture(autouse=True)
def _a_new_accelerator():
    AcceleratorState._reset_state(reset_partial_state=True)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


def loop(data, one, *, way="explicit", size=4, accumulate=1, precision="no"):
    """As the README writes it; the gradients that each optimiser step is made with."""
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=accumulate, mixed_precision=precision)
    model = vit()
    given = RegularizedModule(LogitsNetwork(model), one) if way == "module" else model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.001)
    wrapped, optimizer, loader = accelerator.prepare(given, optimizer, DataLoader(data, batch_size=size))
    gradients = []
    for batch in loader:
        with accelerator.accumulate(wrapped):
            loss = STEPS[way](wrapped, batch, one)
            accelerator.backward(loss)
            if accelerator.sync_gradients:
                gradients.append(flat_gradient(model))
            optimizer.step()
            optimizer.zero_grad()
            if accelerator.sync_gradients:
                one.step()
    return gradients


def explicitly(model, batch, one):
    images = batch["pixel_values"].requires_grad_()
    with sdpa_kernel(SDPBackend.MATH):
        logits = model(images).logits
    task_loss = F.cross_entropy(logits, batch["labels"])
    return one(logits, images, batch["labels"], task_loss=task_loss).loss


def watched(model, batch, one):
    stepper = StepRegularizer(one, {"model": model})
    with stepper.watching():
        loss = model(**batch).loss
    return stepper.add_penalty(loss, batch["labels"])


def as_a_module(model, batch, one):
    logits, penalty = model(batch["pixel_values"], batch["labels"])
    return one.combine(penalty, task_loss=F.cross_entropy(logits, batch["labels"])).loss


STEPS = {"explicit": explicitly, "watched": watched, "module": as_a_module}


@pytest.mark.parametrize("way", list(STEPS))
@pytest.mark.parametrize("accumulate", [1, 2])
def test_gradients_are_the_explicit_losss(way, accumulate):
    data = Images(16)
    many = {"accumulation_steps": 1 if accumulate == 1 else None}
    expected = explicit_steps(vit(), [regularizer(adaptive(), **many)], [data.batches(4)], accumulate=accumulate)
    found = loop(data, regularizer(adaptive(), **many), way=way, accumulate=accumulate)
    assert len(found) == len(expected) == 4 // accumulate
    assert max(relative_error(*pair) for pair in zip(found, expected, strict=True)) < ROUNDING


@pytest.mark.parametrize("way", list(STEPS))
def test_mixed_precision_errs_at_most_twice_as_much_as_the_plain_loss(way):
    data, errors, gradients = Images(32), [], []
    for strength in (0.0, 100.0):
        (expected,) = explicit_steps(vit(), [regularizer(strength)], [data.batches(32)])
        # A strength of 0 is the plain loss, by another name.
        (found,) = loop(data, regularizer(strength), way=way, size=32, precision="bf16")
        errors.append(relative_error(found, expected))
        gradients.append(expected)
    assert relative_error(*gradients) > 0.1
    plain, penalised = errors
    assert 1e-4 < plain < 0.1
    assert penalised <= 2 * plain


def test_the_penalty_has_a_say():
    data = Images(8)
    model = vit()
    plain, penalised = (
        explicit_steps(copy.deepcopy(model), [regularizer(strength)], [data.batches(8)])[0]
        for strength in (0.0, STRENGTH)
    )
    assert relative_error(plain, penalised) > 0.1
