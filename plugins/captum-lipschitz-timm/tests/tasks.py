"""Tasks of timm with small networks, and its training loop in short."""

import torch
from networks import (
    create,
    data,
    flat_gradient,
    generator,
)
from timm.task import ClassificationTask
from torch import nn

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer
from captum_lipschitz_timm import LipschitzClassificationTask, with_half_huber


def network(name="test_resnet", **settings):
    return with_half_huber(create(name, **settings), check=False).model


def regularizer(strength=30.0, **settings):
    return LipschitzRegularizer(strength=strength, generator=generator(), **settings)


def task_of(model, criterion=None, **settings):
    criterion = criterion if criterion is not None else nn.CrossEntropyLoss()
    return LipschitzClassificationTask(model, criterion, regularizer=regularizer(**settings), verbose=False)


def gradient_of(task, images, target):
    task.zero_grad()
    result = task(images, target)
    result["loss"].backward()
    return flat_gradient(task.get_trainable_module()), result


def loop(task, optimizer, batches, *, accumulate, scaler=None, autocast=None, wait=None):
    """Timm's loop in short: the loss is divided in place, and the last step may have fewer micro-batches."""
    strengths, gradients = [], []
    last = len(batches) // accumulate * accumulate
    for index, (images, target) in enumerate(batches):
        steps = accumulate if index < last else len(batches) - last
        update = index + 1 == len(batches) or (index + 1) % accumulate == 0
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast is not None):
            result = task(images, target)
            loss = result["loss"]
            if steps > 1:
                loss /= steps
        strengths.append(float(result["strength"]))
        if scaler is not None:
            scaler(loss, optimizer, need_update=update, parameters=task.parameters())
        else:
            loss.backward()
            if update:
                gradients.append(flat_gradient(task.get_trainable_module()))
                optimizer.step()
        if update:
            optimizer.zero_grad()
            task.update_ema()
    return strengths, gradients


def adaptive():
    return AdaptiveStrength(target_loss=3.0, initial=30.0, gain=0.5, rise=1.0, fall=0.2)


def batches_of(count, size=8):
    return [data(size, seed=10 + index) for index in range(count)]


def one_pass(task, optimizer, batch, *, update):
    task(*batch)["loss"].backward()
    if update:
        optimizer.step()
        optimizer.zero_grad()


def plain_task():
    return ClassificationTask(network(), nn.CrossEntropyLoss(), verbose=False)


def compiled():
    return torch.compile(network(), backend="eager")
