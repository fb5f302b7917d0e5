"""The penalty in timm's training tasks: gradients of the explicit loss, in every way that timm's loop trains."""

import copy

import numpy as np
import pytest
import timm
import torch
from networks import (
    CLASSES,
    FAMILIES,
    ROUNDING,
    create,
    data,
    explicit,
    explicit_gradient,
    flat_gradient,
    flat_parameters,
    generator,
    relative_error,
)
from tasks import compiled, gradient_of, network, plain_task, regularizer, task_of
from timm.data import Mixup
from timm.loss import BinaryCrossEntropy, JsdCrossEntropy, LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.task import ClassificationTask, FeatureDistillationTask, LogitDistillationTask, TokenDistillationTask
from timm.utils import NativeScaler
from torch import nn
from torch.nn import functional as F

from captum_lipschitz.errors import (
    InvalidInputError,
    InvalidTypeError,
    UnsupportedTrainingError,
)
from captum_lipschitz_timm import LipschitzClassificationTask, regularize_task

STRENGTHS = {"test_resnet": 30.0, "test_convnext": 1e4, "test_efficientnet": 100.0, "test_vit": 300.0}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_step_has_the_gradients_of_the_explicit_loss(name):
    model, strength, (images, labels) = network(name), STRENGTHS[name], data()
    expected = explicit_gradient(model, images, labels, F.cross_entropy, strength=strength)
    plain = explicit_gradient(model, images, labels, F.cross_entropy, strength=0.0)
    assert relative_error(plain, expected) > 0.1  # the penalty matters
    found, result = gradient_of(task_of(model, strength=strength), images, labels)
    assert relative_error(found, expected) < ROUNDING
    logits = result["output"]
    value = F.cross_entropy(logits, labels) + strength * result["penalty"]
    torch.testing.assert_close(result["loss"], value)
    assert float(result["strength"]) == strength
    assert not result["penalty"].requires_grad
    assert not result["strength"].requires_grad


def mixed(images, labels, **settings):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        np.random.seed(0)  # noqa: NPY002 - what timm's Mixup draws from
        return Mixup(num_classes=CLASSES, **settings)(images.clone(), labels)


CRITERIA = {
    "label smoothing": (LabelSmoothingCrossEntropy(0.1), None),
    "binary": (BinaryCrossEntropy(smoothing=0.1), None),
    "binary, summed": (BinaryCrossEntropy(sum_classes=True), None),
    "jsd": (JsdCrossEntropy(num_splits=2), None),
    "mixup": (SoftTargetCrossEntropy(), {"mixup_alpha": 0.8}),
    "cutmix": (SoftTargetCrossEntropy(), {"mixup_alpha": 0.0, "cutmix_alpha": 1.0}),
    "mixup, binary": (BinaryCrossEntropy(smoothing=0.0, target_threshold=0.2), {"mixup_alpha": 0.8}),
    "mixup of each image": (SoftTargetCrossEntropy(), {"mixup_alpha": 0.8, "mode": "elem"}),
    "class weights": (nn.CrossEntropyLoss(weight=torch.arange(1.0, 1 + CLASSES)), None),
}


@pytest.mark.parametrize("name", CRITERIA)
def test_every_loss_of_timm(name):
    criterion, mixup = CRITERIA[name]
    model, (images, target) = network(), data()
    if mixup is not None:
        images, target = mixed(images, target, **mixup)
        assert target.shape == (8, CLASSES)
    settings = {"strength": 30.0, "zeta": 0.9}  # the labels matter
    expected = explicit_gradient(model, images, target, criterion, **settings)
    other = explicit_gradient(model, images, target, criterion, **settings, labels=(data()[1] + 1) % CLASSES)
    assert relative_error(other, expected) > 0.01
    found, _ = gradient_of(task_of(model, criterion, tandem_probability=0.9), images, target)
    assert relative_error(found, expected) < ROUNDING


def test_several_labels():
    multi = getattr(timm.task, "MultiLabelClassificationTask", None)
    if multi is None:
        pytest.skip("this timm has no task of several labels")
    model, (images, _) = network(), data()
    target = (torch.rand(8, CLASSES, generator=generator(7)) > 0.5).float()
    expected = explicit_gradient(
        model, images, target, F.binary_cross_entropy_with_logits, strength=30.0, zeta=0.9, multi_label=True
    )
    task = multi(model, BinaryCrossEntropy(smoothing=0.0), verbose=False)
    regularize_task(task, regularizer(multi_label=True, tandem_probability=0.9))
    found, _ = gradient_of(task, images, target)
    assert relative_error(found, expected) < ROUNDING


def distilled(kind):
    teacher = create("test_vit", seed=3).eval()
    common = {"criterion": nn.CrossEntropyLoss(), "verbose": False}
    if kind == "logits":
        return LogitDistillationTask(network("test_vit"), teacher, distill_loss_weight=0.5, **common)
    if kind == "features":
        return FeatureDistillationTask(network("test_vit"), teacher, distill_loss_weight=0.5, **common)
    torch.manual_seed(0)
    small = {"img_size": 32, "depth": 1, "embed_dim": 32, "num_heads": 2, "num_classes": CLASSES}
    student = timm.create_model("deit_tiny_distilled_patch16_224", **small)
    for parameter in student.parameters():
        nn.init.normal_(parameter, std=0.1)
    return TokenDistillationTask(student, teacher, **common)


@pytest.mark.parametrize("kind", ["logits", "features", "token"])
def test_any_task_can_be_regularised_and_be_itself_again(kind):
    task, (images, labels) = distilled(kind), data()
    kind_before, forward = type(task), copy.deepcopy(task)
    before = {path: getattr(module, "fused_attn", None) for path, module in task.named_modules()}
    handle = regularize_task(task, regularizer(100.0))
    found, result = gradient_of(task, images, labels)

    leaf = images.clone().requires_grad_()  # by hand: the task's own dictionary, in a copy
    for module in forward.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    plain = forward(leaf, labels)
    output = regularizer(100.0)(plain["output"], leaf, labels, task_loss=plain["loss"])
    output.loss.backward()
    expected = flat_gradient(forward.get_trainable_module())
    assert relative_error(found, expected) < ROUNDING
    assert set(result) == {*plain, "penalty", "strength"}
    assert isinstance(task, kind_before)

    handle.remove()
    handle.remove()
    assert type(task) is kind_before
    assert {path: getattr(module, "fused_attn", None) for path, module in task.named_modules()} == before
    assert set(task(images, labels)) == set(plain)


def half_precision(model, images, labels, strength):
    """Gradients in bfloat16: the task's, and those of the explicit loss."""
    explicitly = copy.deepcopy(model)
    task = task_of(copy.deepcopy(model), strength=strength)
    with torch.autocast("cpu", torch.bfloat16):
        result = task(images, labels)
        loss, _ = explicit(explicitly, images, labels, F.cross_entropy, strength=strength)
    assert result["output"].dtype == torch.bfloat16
    result["loss"].backward()
    loss.backward()
    return flat_gradient(task.get_trainable_module()), flat_gradient(explicitly)


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_errs_at_most_twice_as_much_as_without_the_penalty(name):
    """Where the penalty's gradient is a quarter as long as the task loss's.

    Where it is longer bfloat16 itself errs more, see the README and the next test.
    """
    size = {"img_size": 64} if "vit" in name else {}
    model, (images, labels) = network(name, **size), data(seed=50, size=64)
    plain = explicit_gradient(model, images, labels, F.cross_entropy, strength=0.0)
    unit = explicit_gradient(model, images, labels, lambda logits, _: 0.0 * logits.sum(), strength=1.0)
    strength = float(0.25 * plain.norm() / unit.norm())
    error = relative_error(half_precision(model, images, labels, 0.0)[0], plain)
    penalised = relative_error(half_precision(model, images, labels, strength)[0], plain + strength * unit)
    assert 1e-3 < error < 0.3
    assert penalised <= 2 * error


@pytest.mark.parametrize("name", FAMILIES)
def test_bfloat16_gradients_are_those_of_the_explicit_loss_in_bfloat16(name):
    """Also where the penalty is all of the gradient, which then errs more than twice as much behind BatchNorm."""
    images, labels = data()
    found, expected = half_precision(network(name), images, labels, STRENGTHS[name])
    # Attention by timm's own formula and by PyTorch's rounds in other places; the rest is the same arithmetic.
    assert relative_error(found, expected) < (2e-2 if "vit" in name else ROUNDING)


def test_a_gradient_scaler_leaves_the_gradients_as_they_are():
    model, (images, labels) = network(), data()
    expected = explicit_gradient(model, images, labels, F.cross_entropy, strength=30.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = flat_parameters(model)
    result = task_of(model)(images, labels)
    NativeScaler(device="cpu")(
        result["loss"], optimizer, clip_grad=1e9, parameters=model.parameters(), need_update=True
    )
    moved = before - flat_parameters(model)
    assert relative_error(moved, expected) < 1e-5  # read off parameters that are larger


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_checkpointed_networks_have_the_same_gradients(name):
    model, (images, labels) = network(name), data()
    expected, _ = gradient_of(task_of(copy.deepcopy(model)), images, labels)
    model.set_grad_checkpointing()
    found, _ = gradient_of(task_of(model), images, labels)
    assert relative_error(found, expected) < ROUNDING


def test_channels_last_and_a_network_that_changes_its_input():
    class Changing(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = network()

        def forward(self, images):
            assert images.is_contiguous(memory_format=torch.channels_last)
            return self.net(images.mul_(2.0))

    model, (images, labels) = Changing().to(memory_format=torch.channels_last), data()
    images = images.to(memory_format=torch.channels_last)
    kept = images.clone()
    inner = explicit_gradient(model.net, 2 * images, labels, F.cross_entropy, strength=4 * 30.0)  # (2 * slope) ** 2
    found, _ = gradient_of(task_of(model), images, labels)
    assert torch.equal(images, kept)
    assert relative_error(found, inner) < 10 * ROUNDING  # another order of the convolutions' sums


def test_evaluation_is_that_of_the_plain_task():
    model, (images, labels) = network(), data()
    task = task_of(model)
    state = task.regularizer.state_dict()
    with torch.no_grad():
        assert set(task(images, labels)) == {"loss", "output"}
    task.eval()
    assert set(task(images, labels)) == {"loss", "output"}
    assert torch.equal(task.regularizer.state_dict()["generator"], state["generator"])


def test_frozen_normalisation_does_not_turn_the_penalty_off():
    task, (images, labels) = task_of(network()), data()
    task.get_trainable_module().eval()
    assert "penalty" in task(images, labels)


def own(**result):
    class Own(timm.task.TrainingTask):
        def __init__(self):
            super().__init__(verbose=False)
            self.trainable_module = network()

        def forward(self, *_):
            return result

    task = Own()
    regularize_task(task, regularizer())
    return task


BAD = [
    (
        lambda: LipschitzClassificationTask(network(), nn.CrossEntropyLoss(), regularizer=0.1),
        InvalidTypeError,
        "regularizer: expected a captum",
    ),
    (lambda: regularize_task(network(), regularizer()), InvalidTypeError, "task: expected a timm.task.TrainingTask"),
    (lambda: regularize_task(plain_task(), 3), InvalidTypeError, "regularizer: expec"),
    (lambda: regularize_task(task_of(network()), regularizer()), InvalidInputError, "task: expected one without a pen"),
    (lambda: task_of(network()).compile(), UnsupportedTrainingError, "compile: expected a network that is not"),
    (lambda: task_of(compiled()), UnsupportedTrainingError, "train without --torchcompile"),
    (lambda: task_of(nn.DataParallel(network())), UnsupportedTrainingError, "DistributedDataParallel, got DataPara"),
    (
        lambda: task_of(network()).prepare_distributed(static_graph=True),
        UnsupportedTrainingError,
        "static_graph: expected False",
    ),
    (lambda: task_of(network())(data()[0].long(), data()[1]), InvalidTypeError, "input: expected a floating tensor"),
    (lambda: own(loss=torch.ones(()))(*data()), InvalidInputError, r"expected LipschitzOwn to return .*got \['loss'\]"),
    (lambda: own()(*data()), InvalidInputError, r"as 'output' beside the 'loss', got \[\]"),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD)
def test_messages(call, error, message):
    with pytest.raises(error, match=message):
        call()


def test_a_task_that_cannot_be_regularised_is_left_as_it_was():
    task = plain_task()
    with pytest.raises(InvalidTypeError):
        regularize_task(task, None)
    assert type(task) is ClassificationTask
    assert "regularizer" not in vars(task)
