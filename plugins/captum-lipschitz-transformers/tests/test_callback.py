"""What is logged, what checkpoints hold, and what is refused."""

import copy
from types import SimpleNamespace

import pytest
import torch
from models import (
    STRENGTH,
    ConvNet,
    Images,
    adaptive,
    arguments,
    flat_parameters,
    regularizer,
    resnet,
    vit,
)
from torch import nn
from torch.nn import functional as F
from transformers import Trainer, TrainerCallback, ViTForImageClassification

from captum_lipschitz import margin_radius
from captum_lipschitz.errors import (
    CaptumLipschitzWarning,
    InvalidInputError,
    InvalidTypeError,
    UnsupportedTrainingError,
)
from captum_lipschitz_transformers import (
    LipschitzTrainer,
    LipschitzTrainerCallback,
    LipschitzTrainerMixin,
    LogitsNetwork,
    regularize_trainer,
)


def made(model=None, data=None, one=None, *, options=None, **settings):
    model = vit() if model is None else model
    data = Images() if data is None else data
    one = regularizer() if one is None else one
    return LipschitzTrainer(model, arguments(**settings), train_dataset=data, lipschitz=one, **(options or {}))


@pytest.mark.parametrize("bf16", [False, True])
def test_figures_go_with_the_training_loss(bf16):
    seen = []

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            images, labels = data.batches()[state.global_step - 1]
            plain = vit()
            plain.load_state_dict(model.state_dict())
            seen.append(float(margin_radius(LogitsNetwork(plain), images, labels).median()))

    model = vit()
    data = Images(32, decided_by=model)
    trainer = made(model, data, bf16=bf16, options={"lipschitz_radius_every": 2, "callbacks": [Watch()]})
    trainer.train()
    rows = [row for row in trainer.state.log_history if "loss" in row]
    assert len(rows) == 4
    for row in rows:
        assert row["lipschitz_strength"] == STRENGTH
        assert row["lipschitz_penalty"] > 0
        total = row["lipschitz_task_loss"] + row["lipschitz_strength"] * row["lipschitz_penalty"]
        assert row["loss"] == pytest.approx(total, rel=1e-5)
    radii = [row.get("lipschitz_median_radius") for row in rows]
    assert radii == [pytest.approx(seen[0], rel=1e-5), None, pytest.approx(seen[2], rel=1e-5), None]
    assert seen[0] > 0


def test_logged_by_the_epoch():
    trainer = made(data=Images(16), logging_strategy="epoch")
    trainer.train()
    (row,) = [row for row in trainer.state.log_history if "loss" in row]
    assert row["lipschitz_penalty"] > 0


def restored_vit(folder):
    """The Trainer of transformers 5.24 does not find a ViT's layers in its own checkpoint: they are saved renamed."""
    model = ViTForImageClassification.from_pretrained(folder)
    model.config.initializer_range = 0.3
    return model


@pytest.mark.parametrize(
    ("make", "restored", "stop"),
    [(resnet, lambda _: resnet(), 4), (resnet, lambda _: resnet(), 3), (vit, restored_vit, 3)],
    ids=["resnet, epoch", "resnet, within", "vit, within"],
)
def test_resumed_training_ends_with_the_same_bits(make, restored, stop):
    """Stopped at the end of an epoch of four steps, and in the middle of one."""
    more = {
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": stop,
        "optim": "adamw_torch",
        "train_sampling_strategy": "random",
    }

    def run(folder, seed, model, **settings):
        one = regularizer(adaptive(), seed=seed)
        trainer = made(model, Images(32, decided_by=vit()), one, output_dir=folder, **more)
        trainer.train(**settings)
        return flat_parameters(model), one.state_dict(), trainer.state

    folder = f"whole/checkpoint-{stop}"
    whole, state, _ = run("whole", 5, make())
    again, again_state, trainer_state = run("again", 6, restored(folder), resume_from_checkpoint=folder)
    assert trainer_state.global_step == state["steps"] == again_state["steps"] == 12
    assert torch.equal(whole, again)
    assert state["controller"] == again_state["controller"]
    assert state["controller"]["integral"] > 0
    assert torch.equal(state["generator"], again_state["generator"])


def test_a_checkpoint_without_a_penalty_goes_on_with_a_warning():
    settings = {"save_strategy": "steps", "save_steps": 1, "num_train_epochs": 2}
    Trainer(vit(), arguments(**settings), train_dataset=Images()).train()
    trainer = made(**settings)
    with pytest.warns(CaptumLipschitzWarning, match="the strength starts anew"):
        trainer.train(resume_from_checkpoint="out/checkpoint-1")
    assert trainer.lipschitz_loss.regularizer.state_dict()["steps"] == 1


def test_a_callback_alone_is_refused():
    trainer = Trainer(vit(), arguments(), train_dataset=Images(), callbacks=[LipschitzTrainerCallback()])
    with pytest.raises(UnsupportedTrainingError, match=r"LipschitzTrainer\(\.\.\., lipschitz="):
        trainer.train()


def test_a_callback_that_is_added_already_is_refused():
    words = "LipschitzTrainerCallback, as a regularised trainer has added its own already; leave it out"
    with pytest.raises(UnsupportedTrainingError, match=words):
        made(options={"callbacks": [LipschitzTrainerCallback()]})
    with pytest.raises(UnsupportedTrainingError, match=words):
        made().add_callback(LipschitzTrainerCallback)
    trainer = Trainer(vit(), arguments(), callbacks=[LipschitzTrainerCallback()])
    with pytest.raises(UnsupportedTrainingError, match=words):
        regularize_trainer(trainer, regularizer())
    assert type(trainer) is Trainer


def test_a_new_model_starts_with_a_new_state_and_the_same_one_goes_on():
    def strengths(trainer):
        trainer.train()
        return [row["lipschitz_strength"] for row in trainer.state.log_history if "loss" in row]

    def made_anew():
        return vit()

    settings = {"train_dataset": Images(16), "args": arguments()}
    anew = LipschitzTrainer(model_init=made_anew, lipschitz=regularizer(adaptive()), **settings)
    first = strengths(anew)
    assert first[0] != first[1]
    assert strengths(anew) == first
    assert anew.lipschitz_loss.regularizer.state_dict()["steps"] == 2
    on = LipschitzTrainer(vit(), lipschitz=regularizer(adaptive()), **settings)
    assert strengths(on)[0] == first[0]
    assert strengths(on)[0] != first[0]
    assert on.lipschitz_loss.regularizer.state_dict()["steps"] == 4


class Twice(ConvNet):
    def forward(self, images, labels):
        logits = self.net(images) + self.net(images.flip(3))
        return {"loss": F.cross_entropy(logits, labels), "logits": logits[:, None]}


class Words(nn.Module):
    main_input_name = "input_ids"

    def __init__(self):
        super().__init__()
        self.embedding, self.head = nn.Embedding(8, 6), nn.Linear(6, 4)

    def forward(self, attention_mask, input_ids=None, inputs_embeds=None, labels=None):
        given = self.embedding(input_ids) if inputs_embeds is None else inputs_embeds
        logits = self.head((given * attention_mask[..., None]).tanh().mean(1))
        return {"logits": logits} if labels is None else {"loss": F.cross_entropy(logits, labels), "logits": logits}


def words(model, *, embedded):
    tokens = torch.arange(40).reshape(8, 5) % 8
    rows = model.embedding(tokens).detach() if embedded else tokens
    name = "inputs_embeds" if embedded else "input_ids"
    return [{"attention_mask": torch.ones(5), name: row, "labels": index % 4} for index, row in enumerate(rows)]


def test_text_needs_embeddings():
    model = Words()
    with pytest.raises(InvalidTypeError, match=r"input_ids: .* got torch.int64; for text give the model inputs_embeds"):
        made(model, words(model, embedded=False)).train()
    trainer = made(model, words(model, embedded=True))
    trainer.train()
    assert trainer.state.log_history[0]["lipschitz_penalty"] > 0
    assert "lipschitz_median_radius" in trainer.state.log_history[0]
    leaf = torch.stack([row["inputs_embeds"] for row in words(Words(), embedded=True)])
    assert trainer.lipschitz_loss.last.inputs.shape == leaf.shape


def attention(kind):
    model = vit()
    model.config._attn_implementation = kind
    return model


@pytest.mark.parametrize(
    ("model", "given", "settings", "options", "error", "words"),
    [
        (vit, {}, {"torch_compile": True}, {}, UnsupportedTrainingError, "torch_compile: expected False"),
        (vit, {}, {"ddp_static_graph": True}, {}, UnsupportedTrainingError, "ddp_static_graph: expected False"),
        (lambda: attention("flash_attention_2"), {}, {}, {}, UnsupportedTrainingError, "got 'flash_attention_2'"),
        (lambda: vit(problem_type="regression"), {}, {}, {}, UnsupportedTrainingError, "expected classification"),
        (
            lambda: vit(problem_type="multi_label_classification"),
            {"multi": True},
            {},
            {},
            UnsupportedTrainingError,
            r"LipschitzRegularizer\(multi_label=True\)",
        ),
        (
            vit,
            {},
            {"activation_checkpointing": True, "activation_checkpointing_kwargs": {"use_reentrant": True}},
            {},
            UnsupportedTrainingError,
            "use_reentrant=False",
        ),
        (Twice, {"name": "images"}, {}, {}, UnsupportedTrainingError, "compute_loss: expected a loss computed from"),
        (vit, {}, {}, {"lipschitz_labels": "kind"}, InvalidInputError, r"lipschitz_labels: .*\['labels', 'pixel_valu"),
        (vit, {}, {}, {"lipschitz_input": "image"}, InvalidInputError, "lipschitz_input: .* got 'image'"),
        (
            vit,
            {},
            {"label_names": ["labels", "more"]},
            {},
            InvalidInputError,
            r"expected one of label_names, \['labels', 'more'\]",
        ),
    ],
)
def test_what_would_be_wrong_is_refused_and_the_model_is_as_it_was(model, given, settings, options, error, words):
    model = model()
    with pytest.raises(error, match=words):
        made(model, Images(**given), options=options, **settings).train()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())


@pytest.mark.parametrize(("value", "words"), [("FSDP", "got FSDP"), ("DEEPSPEED", "got DEEPSPEED")])
def test_ways_of_sharding_are_refused_by_name(value, words):
    """Neither runs on one CPU; what Accelerate says about them is put in its place."""
    trainer = made()
    trainer.accelerator = SimpleNamespace(
        distributed_type=SimpleNamespace(value=value), unwrap_model=trainer.accelerator.unwrap_model
    )
    with pytest.raises(UnsupportedTrainingError, match=words):
        trainer.lipschitz_callback.on_train_begin(trainer.args, trainer.state, trainer.control)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"lipschitz": 3.0}, InvalidTypeError, "lipschitz: expected a LipschitzRegularizer, got float"),
        ({"lipschitz_input": 3}, InvalidTypeError, "lipschitz_input: expected a key of the batch or None, got int"),
        (
            {"lipschitz_radius_every": 0},
            InvalidInputError,
            "lipschitz_radius_every: expected at least 1 or None, got 0",
        ),
    ],
)
def test_settings_that_cannot_be_used(given, error, words):
    with pytest.raises(error, match=words):
        LipschitzTrainer(vit(), arguments(), **{"lipschitz": regularizer(), **given})


def test_a_mixin_before_nothing_and_a_second_penalty_are_refused():
    with pytest.raises(TypeError):
        LipschitzTrainerMixin(vit(), arguments(), lipschitz=regularizer())
    with pytest.raises(UnsupportedTrainingError, match="it has one already"):
        regularize_trainer(made(), regularizer())


def test_what_was_left_of_a_step_is_dropped_when_training_begins():
    one = regularizer(accumulation_steps=None)
    one.combine(torch.zeros(()), task_loss=torch.tensor(100.0))
    trainer = made(one=one, gradient_accumulation_steps=2, per_device_train_batch_size=4)
    trainer.train()
    fresh = copy.deepcopy(one.state_dict())
    assert fresh["steps"] == 1
