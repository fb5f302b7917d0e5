"""The callback's area is that of ``accuracy_robustness_area``, and training goes on as it would have without."""

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from modules import Classifier, data, fit, flat_parameters, loader
from torch.utils.data import DataLoader, TensorDataset

from captum_lipschitz import MinimumNormAttack, accuracy_robustness_area
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz_lightning import AraCallback


def attack():
    return MinimumNormAttack(effort="fast", bounds=(0, 1))


class Noted(AraCallback):
    """Also measures by itself, with the same parameters."""

    def __init__(self, *arguments, count, **settings):
        super().__init__(*arguments, **settings)
        self.count = count
        self.pairs = []

    def on_validation_epoch_end(self, trainer, pl_module):
        before = self.result
        super().on_validation_epoch_end(trainer, pl_module)
        if self.result is before:
            return
        with torch.inference_mode(False):
            images, labels = (tensor[: self.count] for tensor in data(24, seed=9))
            batches = list(zip(images.split(8), labels.split(8), strict=True))
            expected = accuracy_robustness_area(pl_module.net, batches, attack=attack(), doubts="off")
        self.pairs.append((self.result, expected))


def test_equal_to_the_function_called_directly():
    callback = Noted(max_images=20, attack=attack(), count=20)
    trainer = fit(Classifier(), loader(16), callback, val=loader(24, seed=9))
    ((result, expected),) = callback.pairs
    assert torch.equal(result.distances, expected.distances)
    assert len(result) == 20
    assert (result.area, result.interval) == (expected.area, expected.interval)
    assert result.area > 0
    logged = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("ara")}
    assert logged == pytest.approx(
        {
            "ara": expected.area,
            "ara_low": expected.interval[0],
            "ara_high": expected.interval[1],
            "ara_not_found": 0,
            "ara_clean_accuracy": expected.clean_accuracy,
        }
    )


def test_every_second_epoch_and_every_validation_by_itself():
    callback = Noted(every_n_epochs=2, max_images=8, attack=attack(), count=8)
    module = Classifier()
    trainer = fit(module, loader(8), callback, val=loader(24, seed=9), max_epochs=5, num_sanity_val_steps=1)
    assert len(callback.pairs) == 3  # after epochs 1 (the first), 2 and 4
    trainer.validate(module, loader(24, seed=9), verbose=False)
    assert len(callback.pairs) == 4
    assert all(torch.equal(result.distances, expected.distances) for result, expected in callback.pairs)


@pytest.mark.parametrize("workers", [0, 1])
def test_training_goes_on_as_without_and_modes_are_as_they_were(workers):
    def run(*callbacks):
        module = Classifier(torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Dropout(0.2), Classifier().net))
        module.net[0].eval()  # a frozen layer
        torch.manual_seed(3)
        np.random.seed(3)  # noqa: NPY002
        shuffled = DataLoader(TensorDataset(*data(32)), batch_size=8, shuffle=True)
        val = DataLoader(TensorDataset(*data(16, 9)), batch_size=8, num_workers=workers if callbacks else 0)
        fit(module, shuffled, *callbacks, val=val, max_epochs=2)
        modes = [one.training for one in module.modules()]
        return flat_parameters(module), torch.rand(1), np.random.rand(1), modes  # noqa: NPY002

    parameters, torch_draw, numpy_draw, modes = run(AraCallback(max_images=8, attack=attack()))
    plain_parameters, plain_torch_draw, plain_numpy_draw, plain_modes = run()
    assert torch.equal(parameters, plain_parameters)
    assert torch.equal(torch_draw, plain_torch_draw)
    assert np.array_equal(numpy_draw, plain_numpy_draw)
    assert modes == plain_modes


def test_given_data_batches_of_other_forms_and_another_network():
    class Named(Classifier):
        def validation_step(self, batch, batch_idx):
            return None

    rows = [{"image": image, "label": label} for image, label in zip(*data(8, 9), strict=True)]
    common = {"attack": attack(), "model": "net"}
    places = [
        AraCallback(images="image", labels=lambda batch: batch["label"], name="one", **common),
        AraCallback(data=data(8, 9), name="two", **common),
        AraCallback(data=loader(8, seed=9), name="three", **common),
    ]
    fit(Named(), loader(8), *places, val=DataLoader(rows, batch_size=8))
    assert torch.equal(places[0].result.distances, places[1].result.distances)
    assert torch.equal(places[0].result.distances, places[2].result.distances)


def test_the_best_checkpoint_by_its_area(tmp_path):
    saves = pl.callbacks.ModelCheckpoint(tmp_path, monitor="ara", mode="max", filename="{ara:.4f}")
    callback = AraCallback(max_images=8, attack=attack())
    fit(Classifier(), loader(8), callback, saves, val=loader(8, seed=9))
    assert float(saves.best_model_score) == pytest.approx(callback.result.area)


def test_a_monitor_finds_the_area_after_every_validation(tmp_path):
    saves = pl.callbacks.ModelCheckpoint(tmp_path, monitor="ara", mode="max", save_top_k=-1)
    callback = AraCallback(every_n_epochs=3, max_images=8, attack=attack())
    fit(Classifier(), loader(8), callback, saves, val=loader(8, seed=9), max_epochs=2)
    assert [float(score) for score in saves.best_k_models.values()] == pytest.approx([callback.result.area] * 2)


def test_where_nothing_is_validated_nothing_can_be_measured():
    with pytest.raises(InvalidInputError, match="trainer: expected one that validates"):
        fit(Classifier(), loader(8), AraCallback(data=data(8, 9)))


def test_two_of_one_name_would_log_the_same_figures():
    with pytest.raises(InvalidInputError, match="name: expected another one for each AraCallback, got 'ara' 2 times"):
        fit(Classifier(), loader(8), AraCallback(), AraCallback(), val=loader(8, seed=9))


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"every_n_epochs": 0}, InvalidInputError, "every_n_epochs: expected at least 1, got 0"),
        ({"max_images": 0}, InvalidInputError, "max_images: expected at least 1 or None, got 0"),
        ({"bound": (0, 1)}, InvalidTypeError, r"settings: expected any of .*'bounds'.*, got \['bound'\]"),
        ({"images": torch.zeros(2)}, InvalidTypeError, "images: expected a place"),
    ],
)
def test_settings_that_cannot_be_used(given, error, words):
    with pytest.raises(error, match=words):
        AraCallback(**given)
