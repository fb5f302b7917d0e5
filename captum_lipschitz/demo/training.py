"""A plain training loop, with the regularizer where one is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Optimizer
from tqdm.auto import tqdm

from captum_lipschitz import LipschitzRegularizer


def default_optimizer(parameters: Iterable[Tensor]) -> Optimizer:
    """SGD as in the paper: learning rate 0.1, momentum 0.9, weight decay 1e-4."""
    return torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=1e-4)


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int,
    seed: int,
    regularizer: LipschitzRegularizer | None = None,
    optimizer: Callable[[Iterable[Tensor]], Optimizer] = default_optimizer,
    batch_size: int = 64,
    name: str = "Training",
    show_progress: bool = True,
) -> float:
    """Train in place with a one-cycle schedule; evaluation mode afterwards.

    Args:
        model: maps (N, ...) to logits (N, C).
        images: floating, (N, ...).
        labels: integer classes, (N,).
        epochs: passes over the images.
        seed: of the order of the images.
        regularizer: adds the Lipschitz penalty to the cross entropy; ``None`` for plain training.
        optimizer: makes one for the parameters; its learning rate is the schedule's peak.
        batch_size: a last, smaller batch of an epoch is left out.
        name: of the progress bar.
        show_progress: whether there is one.

    Returns:
        Seconds that it took.
    """
    started = time.perf_counter()
    order = torch.Generator().manual_seed(seed)
    steps = epochs * (len(images) // batch_size)
    descent = optimizer(model.parameters())
    peak = descent.param_groups[0]["lr"]
    schedule = torch.optim.lr_scheduler.OneCycleLR(descent, peak, total_steps=steps)
    model.train()
    with tqdm(total=steps, desc=name, disable=not show_progress, unit="step") as bar:
        for _ in range(epochs):
            for rows in torch.randperm(len(images), generator=order).split(batch_size):
                if len(rows) == batch_size:
                    loss, note = _loss(model, images[rows], labels[rows], regularizer)
                    descent.zero_grad()
                    loss.backward()
                    descent.step()
                    schedule.step()
                    bar.set_postfix_str(note, refresh=False)
                    bar.update()
    model.eval()
    return time.perf_counter() - started


def _loss(
    model: nn.Module, images: Tensor, labels: Tensor, regularizer: LipschitzRegularizer | None
) -> tuple[Tensor, str]:
    """The loss to descend, and a word about it for the progress bar."""
    if regularizer is None:
        loss = F.cross_entropy(model(images), labels)
        return loss, f"loss {loss.item():.3f}"
    images = images.clone().requires_grad_()
    logits = model(images)
    task_loss = F.cross_entropy(logits, labels)
    output = regularizer(logits, images, labels, task_loss=task_loss)
    return output.loss, f"loss {task_loss.item():.3f}, strength {output.strength.item():.0f}"
