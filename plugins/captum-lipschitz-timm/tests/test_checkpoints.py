"""Training that is stopped and goes on from one of timm's checkpoint files."""

import argparse
from pathlib import Path

import pytest
import torch
from networks import CLASSES, create, data, flat_parameters
from timm.task import (
    ClassificationTask,
    FeatureDistillationTask,
    load_task_ema_checkpoint,
    resume_task_checkpoint,
)
from timm.utils import CheckpointSaver
from torch import nn

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer
from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz_timm import LipschitzClassificationTask, regularize_task, with_half_huber


def regularizer(seed):
    strength = AdaptiveStrength(target_loss=3.0, initial=30.0, gain=0.5, rise=1.0, fall=0.2)
    return LipschitzRegularizer(strength=strength, generator=torch.Generator().manual_seed(seed))


def started(seed, kind=LipschitzClassificationTask):
    model = with_half_huber(create("test_resnet", seed), check=False).model
    settings = {"regularizer": regularizer(seed)} if kind is LipschitzClassificationTask else {}
    task = kind(model, nn.CrossEntropyLoss(), verbose=False, **settings)
    task.setup_ema(decay=0.9)
    return task, torch.optim.SGD(task.get_trainable_module().parameters(), lr=0.01, momentum=0.9)


def trained(task, optimizer, epochs):
    for epoch in epochs:
        task(*data(seed=epoch))["loss"].backward()
        optimizer.step()
        optimizer.zero_grad()
        task.update_ema()
    return flat_parameters(task.get_trainable_module())


def saved(task, optimizer, folder, epoch):
    saver = CheckpointSaver(
        task.get_trainable_module(),
        optimizer,
        args=argparse.Namespace(model="test_resnet"),
        checkpoint_dir=str(folder),
        recovery_dir=str(folder),
        task=task,
    )
    saver.save_checkpoint(epoch, metric=1.0)
    return str(Path(folder) / "last.pth.tar")


def test_stopped_and_resumed_training_ends_with_the_same_parameters(tmp_path):
    whole = trained(*started(0), range(4))
    path = saved(*_after(started(0), range(2)), tmp_path, 1)
    other, optimizer = started(1)
    assert resume_task_checkpoint(other, path, optimizer, log_info=False) == 2
    load_task_ema_checkpoint(other, path)
    assert torch.equal(trained(other, optimizer, range(2, 4)), whole)
    assert torch.load(path, weights_only=False)["task_state"]["captum_lipschitz"]["steps"] == 2


def _after(task_and_optimizer, epochs):
    trained(*task_and_optimizer, epochs)
    return task_and_optimizer


def test_a_checkpoint_of_the_plain_task_is_warned_of(tmp_path):
    path = saved(*started(0, ClassificationTask), tmp_path, 0)
    task, _ = started(1)
    with pytest.warns(CaptumLipschitzWarning, match="made without a LipschitzRegularizer"):
        resume_task_checkpoint(task, path, log_info=False)
    expected, _ = started(0)
    assert torch.equal(flat_parameters(task.get_trainable_module()), flat_parameters(expected.get_trainable_module()))


def test_a_regularised_checkpoint_loads_into_the_plain_task(tmp_path):
    path = saved(*_after(started(0), range(1)), tmp_path, 0)
    task, _ = started(1, ClassificationTask)
    resume_task_checkpoint(task, path, log_info=False)
    expected = trained(*started(0), range(1))
    assert torch.equal(flat_parameters(task.get_trainable_module()), expected)


def test_a_task_with_a_state_of_its_own_keeps_it():
    def distilled(seed):
        teacher = create("test_vit", seed).eval()
        task = FeatureDistillationTask(create("test_resnet", seed), teacher, nn.CrossEntropyLoss(), verbose=False)
        handle = regularize_task(task, regularizer(seed))
        task.setup_ema()
        return task, handle

    first, _ = distilled(0)
    second, handle = distilled(1)
    assert set(first.get_task_state()) == {"projection", "captum_lipschitz"}
    assert set(first.get_task_state(ema=True)) == {"projection"}
    state = first.get_checkpoint_state()
    second.load_checkpoint_state(state["state_dict"], state["task_state"])
    second.load_checkpoint_state(*first.get_checkpoint_state(ema=True).values(), ema=True)
    found = second.get_trainable_module().projection.weight
    assert torch.equal(found, first.get_trainable_module().projection.weight)
    assert torch.equal(handle.regularizer.generator.get_state(), first.regularizer.generator.get_state())
    assert found.shape[1] != CLASSES
