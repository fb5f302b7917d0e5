"""The real Trainer makes its steps with the gradients of the loop that adds the penalty explicitly."""

import copy

import pytest
import torch
from models import (
    STRENGTH,
    ConvNet,
    ForgetfulConvNet,
    Images,
    Noted,
    adaptive,
    arguments,
    explicit_steps,
    regularizer,
    relative_error,
    resnet,
    vit,
)
from torch.nn import functional as F
from transformers import Trainer

from captum_lipschitz_transformers import LipschitzTrainer, LipschitzTrainerMixin, regularize_trainer

ROUNDING = 2e-6  # of a float32 gradient against the float64 one, in norm


def train(model, data, one=None, *, trainer=LipschitzTrainer, options=None, given=None, **settings):
    noted = Noted()
    more = {} if one is None else {"lipschitz": one}
    made = trainer(
        model, arguments(**settings), train_dataset=data, callbacks=[noted], **more, **(options or {}), **(given or {})
    )
    made.train()
    return noted.gradients, made


def explicit(model, data, strength=STRENGTH, *, size=8, accumulate=1, settings=None, **others):
    one = regularizer(strength, accumulation_steps=1 if accumulate == 1 else None, **(settings or {}))
    return explicit_steps(copy.deepcopy(model), [one], [data.batches(size)], accumulate=accumulate, **others)


def errors(found, expected):
    assert len(found) == len(expected)
    return [relative_error(*pair) for pair in zip(found, expected, strict=True)]


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_gradients_are_the_explicit_losss_to_float32_rounding(attention):
    model, data = vit(attn_implementation=attention), Images()
    expected, plain = explicit(model, data), explicit(model, data, 0.0)
    found, _ = train(model, data, regularizer())
    assert max(errors(found, expected)) < ROUNDING
    assert relative_error(plain[0], expected[0]) > 0.1  # the penalty has a say


@pytest.mark.parametrize(
    ("make", "name"), [(resnet, "pixel_values"), (ConvNet, "images"), (ForgetfulConvNet, "images")]
)
def test_convolutional_networks_and_modules_of_ones_own(make, name):
    model, data = make(), Images(8 if make is resnet else 16, name=name)  # BatchNorm amplifies the steps' own rounding
    expected = explicit(model, data, adaptive())
    found, _ = train(model, data, regularizer(adaptive()))
    assert max(errors(found, expected)) < ROUNDING


@pytest.mark.parametrize(("make", "name"), [(vit, "pixel_values"), (ConvNet, "images")])
def test_accumulation_whose_last_step_and_last_batch_are_short(make, name):
    """The Trainer divides a ViT's loss by the number of items, the other's by that of micro-batches."""
    model, data = make(), Images(18 if make is vit else 20, name=name)
    expected = explicit(model, data, adaptive(), size=4, accumulate=3)
    one = regularizer(adaptive())
    found, _ = train(model, data, one, per_device_train_batch_size=4, gradient_accumulation_steps=3)
    assert max(errors(found, expected)) < ROUNDING
    assert one.state_dict()["steps"] == len(found) == 2
    assert one.state_dict()["controller"]["integral"] > 0


def test_a_mean_that_is_not_divided_by_the_number_of_items_keeps_its_penalty():
    """The Trainer's own sum is then too large by the number of micro-batches, and so is the penalty, no more."""
    model, data = ForgetfulConvNet(), Images(8, name="images")
    (expected,) = explicit(model, data, size=4, accumulate=2)
    found, _ = train(model, data, regularizer(), per_device_train_batch_size=4, gradient_accumulation_steps=2)
    assert relative_error(found[0] / 2, expected) < ROUNDING


@pytest.mark.parametrize("accumulate", [1, 2])
def test_label_smoothing(accumulate):
    model, data = vit(), Images(16)
    smoothed = torch.nn.CrossEntropyLoss(label_smoothing=0.1)
    expected = explicit(model, data, adaptive(), size=4, accumulate=accumulate, loss=smoothed)
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": accumulate}
    found, _ = train(model, data, regularizer(adaptive()), label_smoothing_factor=0.1, **settings)
    assert max(errors(found, expected)) < ROUNDING


def weighted(logits, labels, reduction="mean"):
    return 2 * F.cross_entropy(logits, labels, reduction=reduction)


def test_a_loss_function_of_ones_own():
    def compute(outputs, labels, num_items_in_batch=None):
        return weighted(outputs.logits, labels, "sum") / num_items_in_batch

    model, data = vit(), Images(16)
    expected = explicit(model, data, adaptive(), size=4, accumulate=2, loss=weighted)
    given = {"compute_loss_func": compute}
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    found, _ = train(model, data, regularizer(adaptive()), given=given, **settings)
    assert max(errors(found, expected)) < ROUNDING


def test_a_trainer_of_ones_own_whose_loss_is_another():
    class Weighted(Trainer):
        loss_is_scaled_for_ga = False

        def compute_loss(self, model, inputs, return_outputs=False, num_items_in_batch=None):  # noqa: FBT002
            labels = inputs.pop("labels")
            outputs = model(**inputs)
            loss = weighted(outputs.logits, labels)
            return (loss, outputs) if return_outputs else loss

    class Both(LipschitzTrainerMixin, Weighted):
        pass

    model, data = vit(), Images(16)
    expected = explicit(model, data, adaptive(), size=4, accumulate=2, loss=weighted)
    settings = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    found, _ = train(model, data, regularizer(adaptive()), trainer=Both, **settings)
    assert max(errors(found, expected)) < ROUNDING


def test_several_labels():
    model, data = vit(problem_type="multi_label_classification"), Images(multi=True)
    bce = F.binary_cross_entropy_with_logits
    expected = explicit(model, data, settings={"multi_label": True}, loss=bce)
    found, made = train(model, data, regularizer(multi_label=True))
    assert max(errors(found, expected)) < ROUNDING
    assert not any("lipschitz_median_radius" in row for row in made.state.log_history)


def test_labels_of_another_name():
    class Named(ConvNet):
        def forward(self, images, kind=None):
            return super().forward(images, kind)

    model, data = Named(), Images(8, name="images", label="kind")
    expected = explicit(model, data)
    for given in ({"label_names": ["kind"]}, {"label_names": ["kind", "other"]}):
        options = {"lipschitz_labels": "kind"} if len(given["label_names"]) == 2 else {}
        found, _ = train(copy.deepcopy(model), data, regularizer(), options=options, **given)
        assert max(errors(found, expected)) < ROUNDING


def test_gradients_are_clipped_with_the_penalty_in_them():
    model, data = vit(), Images()
    (expected,) = explicit(model, data)
    found, _ = train(model, data, regularizer(), max_grad_norm=0.5)
    assert expected.norm() > 0.5
    assert relative_error(found[0], expected * 0.5 / expected.norm()) < 1e-5  # torch adds 1e-6 to the norm


@pytest.mark.parametrize("accumulate", [1, 2])
def test_mixed_precision_errs_at_most_twice_as_much_as_the_plain_loss(accumulate):
    data, size = Images(32), 32 // accumulate
    settings = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate, "bf16": True}
    (without,) = explicit(vit(), data, 0.0, size=size, accumulate=accumulate)
    (with_penalty,) = explicit(vit(), data, 100.0, size=size, accumulate=accumulate)
    (found_without,), _ = train(vit(), data, trainer=Trainer, **settings)
    (found,), _ = train(vit(), data, regularizer(100.0), **settings)
    assert relative_error(without, with_penalty) > 0.1
    plain, penalised = relative_error(found_without, without), relative_error(found, with_penalty)
    assert 1e-4 < plain < 0.1
    assert penalised <= 2 * plain
    print(f"bf16, {accumulate} micro-batches: plain {plain:.5f}, penalised {penalised:.5f}")  # noqa: T201


def test_activation_checkpointing():
    model, data = vit(), Images()
    expected = explicit(model, data)
    found, _ = train(model, data, regularizer(), activation_checkpointing=True)
    assert max(errors(found, expected)) < ROUNDING


def test_skipped_steps_are_plain_ones():
    model, data = vit(), Images(24)
    expected = explicit(model, data, settings={"every": 2})
    found, _ = train(model, data, regularizer(every=2))
    assert max(errors(found, expected)) < ROUNDING


def test_a_trainer_that_stands_already_until_the_penalty_is_taken_out():
    model, data = vit(), Images()
    (expected,), (plain,) = explicit(model, data), explicit(model, data, 0.0)
    noted = Noted()
    trainer = Trainer(model, arguments(learning_rate=0.0), train_dataset=data, callbacks=[noted])
    handle = regularize_trainer(trainer, regularizer())
    trainer.train()
    handle.remove()
    handle.remove()
    trainer.train()
    assert type(trainer) is Trainer
    assert relative_error(noted.gradients[0], expected) < ROUNDING
    assert relative_error(noted.gradients[1], plain) < ROUNDING
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


def test_evaluation_and_prediction_are_the_trainers_own():
    model, data = vit(), Images()
    plain = Trainer(model, arguments(), eval_dataset=data)
    penalised = LipschitzTrainer(model, arguments(), eval_dataset=data, lipschitz=regularizer())
    assert plain.evaluate()["eval_loss"] == penalised.evaluate()["eval_loss"]
    assert (plain.predict(data).predictions == penalised.predict(data).predictions).all()
