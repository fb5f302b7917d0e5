"""A LightningModule that knows nothing of the penalty trains with the gradients of the loop that adds it explicitly."""

import copy
import functools
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import SingleDeviceStrategy
from modules import CLASSES, Classifier, data, explicit_steps, fit, flat_parameters, loader, network, relative_error
from torch import nn
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz import AdaptiveStrength, AdversarialTraining, LipschitzRegularizer, margin_radius
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError, UnsupportedLossError, UnsupportedTrainingError
from captum_lipschitz_lightning import LipschitzCallback

ROUNDING = 2e-6  # of a float32 gradient against the float64 one, in norm
STRENGTH = 100.0


def settings(strength=STRENGTH, seed=5):
    return {"strength": strength, "generator": torch.Generator().manual_seed(seed)}


def adaptive():
    return AdaptiveStrength(target_loss=2.0, initial=STRENGTH, gain=0.5, rise=1.0, fall=0.2)


def explicit(net, train, *, strength=STRENGTH, accumulate=1, **others):
    regularizer = LipschitzRegularizer(**settings(strength), accumulation_steps=1 if accumulate == 1 else None)
    return explicit_steps(copy.deepcopy(net), [regularizer], [list(train)], accumulate=accumulate, **others)


class Smoothed(Classifier):
    def training_step(self, batch, batch_idx):
        return {"loss": F.cross_entropy(self.net(batch[0]), batch[1], label_smoothing=0.1), "more": 1}


class Several(Classifier):
    """Runs its network again for a figure, and without a gradient: neither is what the loss is computed from."""

    def training_step(self, batch, batch_idx):
        self.net(torch.rand_like(batch[0]))
        with torch.no_grad():
            self.net(batch[0])
        return F.cross_entropy(self.net(batch[0]), batch[1]) + sum(p.square().sum() for p in self.parameters()) * 0


class Twice(Classifier):
    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch[0]) + self.net(batch[0].flip(3)), batch[1])


class Split(Classifier):
    def __init__(self):
        super().__init__()
        self.body, self.head = self.net[:4], self.net[4:]
        del self.net

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.head(self.body(batch[0])), batch[1])


class SplitByFeatureMaps(Split):
    """Its body returns (N, 8, 6, 6), and may be frozen and run without gradients."""

    frozen = False

    def __init__(self):
        super().__init__()
        self.body, self.head = self.body[:2], nn.Sequential(self.body[2:], self.head)

    def training_step(self, batch, batch_idx):
        with torch.set_grad_enabled(not self.frozen):
            features = self.body(batch[0])
        return F.cross_entropy(self.head(features), batch[1])


class SplitAndFrozen(SplitByFeatureMaps):
    frozen = True


class Objects(Classifier):
    """Its network returns an object, as those of Hugging Face do, and takes a table beside the images."""

    class Net(nn.Module):  # noqa: D106
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, table, *, pixels):
            return SimpleNamespace(logits=self.inner(pixels) + table)

    def __init__(self):
        super().__init__(self.Net())

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(torch.zeros(len(batch[1]), CLASSES), pixels=batch[0]).logits, batch[1])


class SharedStep(Classifier):
    def validation_step(self, batch, batch_idx):
        self.log("val_loss", self.training_step(batch, batch_idx))


class CompiledPart(Classifier):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = self.net[:3], self.net[3:]
        self.net = torch.compile(nn.Sequential(self.backbone, self.head), backend="aot_eager")


class Manual(Classifier):
    def __init__(self):
        super().__init__()
        self.automatic_optimization = False


@pytest.mark.parametrize("labels", [None, 1, lambda batch: batch[1]], ids=["read", "place", "function"])
@pytest.mark.parametrize("model", [None, "net", lambda module: module.net], ids=["found", "name", "function"])
def test_gradients_are_the_explicit_losss_to_float32_rounding(model, labels):
    module = Classifier()
    expected = explicit(module.net, loader(8))
    plain = explicit(module.net, loader(8), strength=0.0)
    fit(module, loader(8), LipschitzCallback(**settings(), model=model, labels=labels))
    assert relative_error(module.gradients[0], expected[0]) < ROUNDING
    assert relative_error(plain[0], expected[0]) > 0.1  # the penalty has a say


def test_every_step_of_an_epoch_with_the_adaptive_strength():
    module = Classifier()
    train = loader(48)
    expected = explicit(module.net, train, strength=adaptive())
    callback = LipschitzCallback(**settings(adaptive()))
    fit(module, train, callback)
    assert [relative_error(*pair) < ROUNDING for pair in zip(module.gradients, expected, strict=True)] == [True] * 6
    assert callback.regularizer.state_dict()["controller"]["integral"] > 0


def test_accumulation_whose_last_step_is_short():
    module = Classifier()
    train = loader(80)
    expected = explicit(module.net, train, strength=adaptive(), accumulate=4)
    callback = LipschitzCallback(**settings(adaptive()))
    fit(module, train, callback, accumulate_grad_batches=4)
    assert len(expected) == 3  # 4 + 4 + 2 micro-batches
    assert [relative_error(*pair) < ROUNDING for pair in zip(module.gradients, expected, strict=True)] == [True] * 3
    assert callback.regularizer.state_dict()["steps"] == 3


def test_a_schedule_of_accumulation():
    module = Classifier()
    callback = LipschitzCallback(**settings())
    fit(module, loader(), callback, pl.callbacks.GradientAccumulationScheduler({0: 4, 1: 1}), max_epochs=2)
    assert callback.regularizer.state_dict()["steps"] == len(module.gradients) == 5


def test_any_loss_with_the_labels_named():
    module = Smoothed()
    expected = explicit(module.net, loader(8), smoothing=0.1)
    fit(module, loader(8), LipschitzCallback(**settings(), labels=1))
    assert relative_error(module.gradients[0], expected[0]) < ROUNDING


def test_calls_that_the_loss_does_not_use_do_not_count():
    module = Several()
    expected = explicit(module.net, loader(8))
    fit(module, loader(8), LipschitzCallback(**settings()))
    assert relative_error(module.gradients[0], expected[0]) < ROUNDING


def test_attacks_within_the_step_are_not_what_is_penalised():
    class Adversarial(Classifier):
        def training_step(self, batch, batch_idx):
            attack = AdversarialTraining(probability=1.0, generator=torch.Generator().manual_seed(2))
            self.shown = attack(self.net, *batch)
            return F.cross_entropy(self.net(self.shown), batch[1])

    module = Adversarial()
    net = copy.deepcopy(module.net)
    fit(module, loader(8), LipschitzCallback(**settings()))
    images, labels = data(8)
    assert not torch.equal(module.shown, images)
    (expected,) = explicit(net, [(module.shown.detach(), labels)])
    assert relative_error(module.gradients[0], expected) < ROUNDING


def test_a_factor_on_the_cross_entropy_is_followed():
    class Halved(Classifier):
        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) / 2

    module = Halved()
    expected = explicit(module.net, loader(8))
    fit(module, loader(8), LipschitzCallback(**settings()))
    assert relative_error(module.gradients[0], expected[0] / 2) < ROUNDING


def _half(precision):
    if precision == "bf16-mixed":
        return {"precision": precision}
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plugin = MixedPrecision("16-mixed", device="cpu", scaler=scaler)
    return {"strategy": SingleDeviceStrategy(device="cpu", precision_plugin=plugin)}


@pytest.mark.parametrize("labels", [None, 1], ids=["read", "named"])
@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_half_precision_errs_at_most_twice_as_much_as_without_the_penalty(precision, labels):
    errors = []
    for strength in (0.0, STRENGTH):
        module = Classifier()
        (expected,) = explicit(module.net, loader(8), strength=strength)
        fit(module, loader(8), LipschitzCallback(**settings(strength), labels=labels), **_half(precision))
        errors.append(relative_error(module.gradients[0], expected))
    plain, penalised = errors
    assert 1e-5 < plain < 0.1
    assert penalised <= 2 * plain


def test_stopped_and_resumed_training_ends_with_the_same_parameters(tmp_path):
    def run(epochs, ckpt_path=None):
        module, callback = Classifier(), LipschitzCallback(**settings(adaptive(), seed=5 if ckpt_path is None else 6))
        saves = pl.callbacks.ModelCheckpoint(tmp_path / f"{epochs}{ckpt_path is None}", save_last=True)
        fit(module, loader(), callback, saves, max_epochs=epochs, ckpt_path=ckpt_path, accumulate_grad_batches=2)
        return flat_parameters(module), callback.regularizer.state_dict(), saves.last_model_path

    whole, state, _ = run(3)
    half, _, path = run(2)
    resumed, resumed_state, _ = run(3, path)
    assert torch.equal(whole, resumed)
    assert not torch.equal(whole, half)
    assert state["controller"] == resumed_state["controller"]
    assert torch.equal(state["generator"], resumed_state["generator"])
    # Safe to load: the trainer may be asked to read nothing but tensors and numbers.
    assert "generators" in torch.load(path, weights_only=True)["callbacks"]["LipschitzCallback"]


def test_figures_are_logged():
    module = Classifier()
    seen = []

    class Watch(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((dict(trainer.callback_metrics), margin_radius(pl_module.net, *batch).median()))

    fit(module, loader(decided=True), LipschitzCallback(**settings(), radius_every=2), Watch())
    names = ["lipschitz_penalty", "lipschitz_strength"]
    assert all(figures["lipschitz_strength"] == STRENGTH and figures["lipschitz_penalty"] > 0 for figures, _ in seen)
    assert set(names) < set(seen[0][0])
    radii = [(float(figures["lipschitz_median_radius"]), float(radius)) for figures, radius in seen]
    assert radii[0][0] == pytest.approx(radii[0][1], rel=1e-6)
    assert radii[0][0] > 0
    assert radii[2][0] == pytest.approx(radii[2][1], rel=1e-6)
    assert radii[1][0] == radii[0][0]  # that of two steps ago


@pytest.mark.parametrize(
    ("module", "given", "error", "words"),
    [
        (Smoothed, {}, UnsupportedLossError, "labels=1"),
        (Twice, {"labels": 1}, UnsupportedTrainingError, "computed from: net, net"),
        (Split, {}, UnsupportedTrainingError, "computed from: body, head"),
        (SplitByFeatureMaps, {}, UnsupportedTrainingError, "computed from: body, head"),
        (SplitAndFrozen, {}, UnsupportedTrainingError, "computed from: body, head"),
        (Objects, {}, UnsupportedTrainingError, "expected one floating input"),
        (CompiledPart, {}, UnsupportedTrainingError, "expected no compiled part, net is one"),
        (Manual, {}, UnsupportedTrainingError, "expected automatic optimisation, Manual optimises by itself"),
        (Classifier, {"model": "nett"}, InvalidInputError, r"one of \['net'\] or of theirs, got 'nett'"),
        (Classifier, {"labels": "label"}, InvalidInputError, "labels: expected an entry of the batch"),
        (Classifier, {"labels": lambda _: 3}, InvalidTypeError, "labels: expected a tensor"),
    ],
)
def test_what_would_be_wrong_is_refused_and_the_module_is_as_it_was(module, given, error, words):
    module = module()
    with pytest.raises(error, match=words):
        fit(module, loader(8), LipschitzCallback(**settings(), **given))
    assert "training_step" not in vars(module)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"accumulation_steps": 2}, InvalidInputError, "it is the trainer's"),
        ({"radius_every": 0}, InvalidInputError, "radius_every: expected at least 1 or None, got 0"),
        ({"model": nn.Linear(2, 2)}, InvalidTypeError, "model: expected a submodule's name or a function"),
        ({"labels": torch.zeros(2)}, InvalidTypeError, "labels: expected a place, a key or a function"),
    ],
)
def test_settings_that_cannot_be_used(given, error, words):
    with pytest.raises(error, match=words):
        LipschitzCallback(strength=1.0, **given)


def test_the_module_is_as_it_was_and_trains_on_without():
    module = Classifier()
    fit(module, loader(8), LipschitzCallback(**settings()))
    assert "training_step" not in vars(module)
    assert not any(one._forward_hooks or one._forward_pre_hooks for one in module.modules())
    (expected,) = explicit(module.net, loader(8), strength=0.0)
    fit(module, loader(8))
    assert relative_error(module.gradients[1], expected) < ROUNDING


def test_a_decorated_training_step_is_given_the_arguments_it_has():
    def logged(step):
        @functools.wraps(step)
        def inner(*args, **keywords):
            return step(*args, **keywords)

        return inner

    class Decorated(Classifier):
        @logged
        def training_step(self, batch):
            return F.cross_entropy(self(batch[0]), batch[1])

    module = Decorated()
    fit(module, loader(8), LipschitzCallback(**settings()))
    assert len(module.gradients) == 1


def test_attention_is_run_in_the_form_that_has_a_second_derivative():
    torch.manual_seed(0)
    attention = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True, activation=F.gelu)
    module = Classifier(nn.Sequential(nn.Flatten(1, 2), attention, nn.Flatten(), nn.Linear(108, 4)))
    with sdpa_kernel(SDPBackend.MATH):
        (expected,) = explicit(module.net, loader(8))
    fit(module, loader(8), LipschitzCallback(**settings()))
    assert relative_error(module.gradients[0], expected) < ROUNDING


def test_a_network_of_several_inputs_that_returns_an_object():
    module = Objects()
    callback = LipschitzCallback(**settings(), inputs=0, radius_every=1)
    trainer = fit(module, loader(8), callback)
    (expected,) = explicit(network(), loader(8))
    assert relative_error(module.gradients[0], expected) < ROUNDING
    assert float(trainer.callback_metrics["lipschitz_median_radius"]) >= 0


def test_validation_that_shares_the_step_has_no_penalty():
    module = SharedStep()
    trainer = fit(module, loader(8), LipschitzCallback(**settings()), val=loader(8, seed=9))
    images, labels = data(8, 9)
    expected = F.cross_entropy(module.net(images), labels)
    assert float(trainer.callback_metrics["val_loss"]) == pytest.approx(float(expected), rel=1e-6)


def test_the_learning_rate_finder_tries_the_regularised_step():
    calls = []

    class Counted(LipschitzRegularizer):
        def __call__(self, *arguments, **keywords):
            calls.append(1)
            return super().__call__(*arguments, **keywords)

    callback = LipschitzCallback(**settings())
    callback.regularizer.__class__ = Counted
    finder = pl.callbacks.LearningRateFinder(num_training_steps=5, early_stop_threshold=None)
    fit(Classifier(), loader(32), finder, callback)
    assert len(calls) > 4  # the epoch's, and before it the finder's


def test_a_trainer_of_the_other_package_is_named():
    other = pytest.importorskip("pytorch_lightning", reason="pytorch_lightning is not installed")
    trainer = other.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module = Classifier()
    module._trainer = trainer
    with pytest.raises(UnsupportedTrainingError, match="got one of pytorch_lightning"):
        LipschitzCallback(**settings()).setup(trainer, module, "fit")


def test_a_compiled_module_is_refused():
    module = torch.compile(Classifier(), backend="aot_eager")
    with pytest.raises(UnsupportedTrainingError, match=r"module\.compile\(\)"):
        fit(module, loader(8), LipschitzCallback(**settings()))


def test_network_and_data_helpers_are_deterministic():
    assert torch.equal(flat_parameters(network()), flat_parameters(network()))
    assert torch.equal(data()[0], data()[0])
