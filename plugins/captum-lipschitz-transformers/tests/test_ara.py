"""The callback's area is that of ``accuracy_robustness_area``, and the Trainer can choose its best model by it."""

import numpy as np
import pytest
import torch
from models import ConvNet, Images, arguments, flat_parameters, regularizer, vit
from torch.utils.data import IterableDataset
from transformers import Trainer

from captum_lipschitz import MinimumNormAttack, accuracy_robustness_area
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz_transformers import AraCallback, LipschitzTrainer, LogitsNetwork

FIGURES = ["ara", "ara_clean_accuracy", "ara_high", "ara_low", "ara_not_found"]


def attack():
    return MinimumNormAttack(effort="fast", bounds=(0, 1))


def evaluation(**settings):
    return Images(12, seed=9, decided_by=vit(), **settings)


def expected_area(model, count):
    data = evaluation()
    batches = list(zip(data.images[:count].split(8), data.labels[:count].split(8), strict=True))
    return accuracy_robustness_area(LogitsNetwork(model), batches, attack=attack(), doubts="off")


@pytest.mark.parametrize("bf16", [False, True])
def test_equal_to_the_function_called_directly(bf16):
    model, callback = vit(), AraCallback(max_images=10, attack=attack())
    trainer = Trainer(
        model, arguments(bf16=bf16), train_dataset=Images(), eval_dataset=evaluation(), callbacks=[callback]
    )
    trainer.train()
    metrics = trainer.evaluate()
    plain = vit()
    plain.load_state_dict(model.state_dict())
    expected = expected_area(plain, 10)
    assert torch.equal(callback.result.distances, expected.distances)
    assert len(callback.result) == 10
    assert expected.area > 0
    found = {name: metrics[f"eval_{name}"] for name in FIGURES}
    low, high = expected.interval
    assert found == {
        "ara": expected.area,
        "ara_clean_accuracy": expected.clean_accuracy,
        "ara_high": high,
        "ara_low": low,
        "ara_not_found": 0,
    }
    assert trainer.state.log_history[-1]["eval_ara"] == expected.area


def test_the_best_model_is_chosen_by_its_area():
    callback = AraCallback(max_images=8, attack=attack())
    settings = {"eval_strategy": "epoch", "save_strategy": "best", "num_train_epochs": 3}
    trainer = LipschitzTrainer(
        vit(),
        arguments(metric_for_best_model="ara", greater_is_better=True, **settings),
        train_dataset=Images(decided_by=vit()),
        eval_dataset=evaluation(),
        callbacks=[callback],
        lipschitz=regularizer(1.0),
    )
    trainer.train()
    areas = [row["eval_ara"] for row in trainer.state.log_history if "eval_ara" in row]
    assert len(set(areas)) == 3
    assert trainer.state.best_metric == max(areas)
    assert trainer.state.best_global_step == 1 + areas.index(max(areas))


def test_every_second_evaluation_and_each_set_by_itself():
    callback = AraCallback(every=2, max_images=4, attack=attack())
    sets = {"one": evaluation(), "two": Images(8, seed=10)}
    trainer = Trainer(vit(), arguments(), eval_dataset=sets, callbacks=[callback])
    results, metrics = [], []
    for _ in range(3):
        metrics.append(trainer.evaluate())
        results.append(callback.result)
    assert results[0] is results[1]
    assert results[1] is not results[2]
    assert {"eval_one_ara", "eval_two_ara"} <= set(metrics[1])
    assert metrics[0]["eval_one_ara"] == metrics[1]["eval_one_ara"] != metrics[0]["eval_two_ara"]


def test_training_goes_on_as_without_and_modes_are_as_they_were():
    def run(*callbacks):
        model = vit(hidden_dropout_prob=0.1)
        model.vit.embeddings.eval()
        settings = {"eval_strategy": "steps", "eval_steps": 1, "train_sampling_strategy": "random"}
        trainer = Trainer(
            model,
            arguments(**settings),
            train_dataset=Images(24),
            eval_dataset=evaluation(),
            callbacks=list(callbacks),
        )
        trainer.train()
        modes = [layer.training for layer in model.modules()]
        return flat_parameters(model), torch.rand(1), np.random.rand(1), modes  # noqa: NPY002

    found, expected = run(AraCallback(max_images=4, attack=attack())), run()
    assert torch.equal(found[0], expected[0])
    assert torch.equal(found[1], expected[1])
    assert np.array_equal(found[2], expected[2])
    assert found[3] == expected[3]


def test_given_data_and_batches_of_other_names():
    class Named(ConvNet):
        def forward(self, images, kind=None):
            return super().forward(images, kind)

    data = Images(8, seed=9, name="images", label="kind")
    common = {"attack": attack(), "images": "images"}
    callbacks = [
        AraCallback(labels="kind", **common),
        AraCallback(data=(data.images, data.labels), **common),
        AraCallback(data=data.batches(8), **common),
    ]
    trainer = Trainer(Named(), arguments(label_names=["kind"]), eval_dataset=data)
    for callback in callbacks:
        trainer.add_callback(callback)
    trainer.evaluate()
    distances = [callback.result.distances for callback in callbacks]
    assert torch.equal(distances[0], distances[1])
    assert torch.equal(distances[0], distances[2])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(list(evaluation()))


@pytest.mark.parametrize(
    ("data", "given", "words"),
    [
        (Stream, {}, "data: expected an evaluation set that is read by index, got Stream"),
        (evaluation, {"labels": "label"}, r"expected keys .*\['labels', 'pixel_values'\], got 'label'"),
    ],
)
def test_sets_that_cannot_be_measured(data, given, words):
    trainer = Trainer(vit(), arguments(), eval_dataset=data(), callbacks=[AraCallback(attack=attack(), **given)])
    with pytest.raises(InvalidInputError, match=words):
        trainer.evaluate()


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"every": 0}, InvalidInputError, "every: expected at least 1, got 0"),
        ({"max_images": 0}, InvalidInputError, "max_images: expected at least 1 or None, got 0"),
        ({"bound": (0, 1)}, InvalidTypeError, r"settings: expected any of .*'bounds'.*, got \['bound'\]"),
    ],
)
def test_settings_that_cannot_be_used(given, error, words):
    with pytest.raises(error, match=words):
        AraCallback(**given)


class TwoInputs(ConvNet):
    def forward(self, images, tab, labels=None):
        return super().forward(images + tab[:, :1, None, None], labels)


class WithoutTab(torch.nn.Module):
    def __init__(self, trained):
        super().__init__()
        self.trained = trained

    def forward(self, images):
        return self.trained(images, images.new_zeros(len(images), 1))["logits"]


def test_a_model_of_several_inputs_is_refused_by_name_and_measured_in_a_wrapper():
    plain = evaluation(name="images")
    rows = [{**plain[index], "tab": torch.zeros(1)} for index in range(len(plain))]

    def evaluate(**settings):
        callback = AraCallback(max_images=8, images="images", attack=attack(), **settings)
        return Trainer(TwoInputs(), arguments(), eval_dataset=rows, callbacks=[callback]).evaluate()

    with pytest.raises(InvalidTypeError, match=r"model: .*'images' alone, got TwoInputs, which also needs tab; .*Wrap"):
        evaluate()
    pairs = [(plain.images[:8], plain.labels[:8])]
    expected = accuracy_robustness_area(WithoutTab(TwoInputs()), pairs, attack=attack(), doubts="off")
    assert evaluate(model=WithoutTab)["eval_ara"] == expected.area
