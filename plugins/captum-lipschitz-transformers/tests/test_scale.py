"""The penalty is weighted as the loss is, whatever loss that is and whatever it was divided by."""

import copy

import pytest
import torch
from models import ConvNet, Images, Noted, adaptive, arguments, explicit_steps, regularizer, relative_error
from torch.nn import functional as F

from captum_lipschitz.errors import UnsupportedLossError
from captum_lipschitz_transformers import LipschitzTrainer

ROUNDING = 2e-6  # of a float32 gradient against the float64 one, in norm
SIZE = 4
smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.1)


class Own(ConvNet):
    """A loss of the model's own, divided by the number of items that it is given."""

    def __init__(self, whole=smoothed, divide=lambda total, items: total / items):
        super().__init__()
        self.whole, self.divide = whole, divide

    def forward(self, images, labels=None, num_items_in_batch=None, **more):
        logits = self.net(images)
        if labels is None:
            return {"logits": logits}
        total = self.whole(logits, labels) * len(labels)
        return {"loss": self.divide(total, num_items_in_batch), "logits": logits}


def fitted(model, data):
    """Trained until the smoothed loss is far from the cross entropy, of which the scale cannot be read off."""
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model.net(data.images), data.labels, label_smoothing=0.02).backward()
        optimizer.step()
    logits = model.net(data.images)
    assert smoothed(logits, data.labels) > 1.5 * F.cross_entropy(logits, data.labels)
    return model


def train(model, data, accumulate, *, given=None, trainer=LipschitzTrainer):
    noted, one = Noted(), regularizer(adaptive())
    settings = {"per_device_train_batch_size": SIZE, "gradient_accumulation_steps": accumulate}
    made = trainer(model, arguments(**settings), train_dataset=data, callbacks=[noted], lipschitz=one, **(given or {}))
    made.train()
    return noted.gradients, one


def assert_as_explicit(model, data, accumulate, loss, **more):
    reference = regularizer(adaptive(), accumulation_steps=1 if accumulate == 1 else None)
    steps = {"accumulate": accumulate, "loss": loss}
    expected = explicit_steps(copy.deepcopy(model), [reference], [data.batches(SIZE)], **steps)
    found, one = train(model, data, accumulate, **more)
    assert len(found) == len(expected)
    assert max(relative_error(*pair) for pair in zip(found, expected, strict=True)) < ROUNDING
    seen, wanted = one.state_dict()["controller"], reference.state_dict()["controller"]
    assert seen["integral"] == pytest.approx(wanted["integral"], rel=1e-5)


@pytest.mark.parametrize("accumulate", [1, 2, 4])
@pytest.mark.parametrize("times", [1.0, 2.0, 0.25])
def test_a_model_that_smooths_labels_and_divides_by_the_number_of_items(accumulate, times):
    data = Images(20, name="images")  # the last step is short
    model = fitted(Own(lambda logits, labels: times * smoothed(logits, labels)), data)
    assert_as_explicit(model, data, accumulate, model.whole)


def test_a_number_of_items_that_is_made_a_plain_one():
    data = Images(16, name="images")
    model = Own(F.cross_entropy, divide=lambda total, items: total / int(items))
    assert_as_explicit(model, data, 2, F.cross_entropy)


@pytest.mark.parametrize("divide", [lambda total, items: total / int(items), lambda total, _: total / SIZE])
def test_a_scale_that_cannot_be_told_is_refused_under_accumulation_alone(divide):
    data = Images(16, name="images")
    model = Own(lambda logits, labels: 8 * F.cross_entropy(logits, labels), divide)
    assert_as_explicit(copy.deepcopy(model), data, 1, model.whole)
    with pytest.raises(UnsupportedLossError, match=r"loss_is_scaled_for_ga on the trainer.*label_smoothing_factor"):
        train(model, data, 2)


def test_a_loss_that_is_divided_in_part_is_refused():
    model = Own(F.cross_entropy, lambda total, items: total / items + total / SIZE)
    with pytest.raises(UnsupportedLossError, match=r"as a whole or not at all, got one that is in part \(0\.333"):
        train(model, Images(16, name="images"), 2)


def test_a_loss_function_of_ones_own_that_returns_a_mean():
    class Told(LipschitzTrainer):
        loss_is_scaled_for_ga = False

    def compute(outputs, labels, num_items_in_batch=None):
        return 8 * F.cross_entropy(outputs["logits"], labels)

    class Logits(ConvNet):
        def forward(self, images, labels=None):  # the Trainer keeps the entries that this names
            return {"logits": self.net(images)}

    model, data = Logits(), Images(16, name="images")
    given = {"compute_loss_func": compute}
    with pytest.raises(UnsupportedLossError, match="near neither the batch's mean cross entropy"):
        train(copy.deepcopy(model), data, 2, given=given)
    told = {"given": given, "trainer": Told}
    assert_as_explicit(model, data, 2, lambda logits, labels: 8 * F.cross_entropy(logits, labels), **told)


def test_a_mean_is_told_in_the_first_batch_and_remembered():
    """What is near the cross entropy at first need not be later, as with smoothed labels."""
    calls = []

    class Drifting(ConvNet):
        def forward(self, images, labels=None, **more):
            answer = super().forward(images, labels)
            if labels is None:
                return answer
            calls.append(1)
            return {**answer, "loss": answer["loss"] * (1 if len(calls) == 1 else 1.5)}

    found, _ = train(Drifting(), Images(16, name="images"), 2)
    assert len(found) == 2
