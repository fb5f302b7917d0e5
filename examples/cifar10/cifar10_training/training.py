"""A training run: images on the device, augmented there, one step after the other."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from tqdm.auto import tqdm

from captum_lipschitz import AdaptiveStrength, LipschitzRegularizer, RegularizedModule
from captum_lipschitz.errors import InvalidInputError
from cifar10_training.adversary import adversary_of
from cifar10_training.augmentation import shuffled
from cifar10_training.average import RunningAverage
from cifar10_training.images import Part
from cifar10_training.network import build_network
from cifar10_training.recipe import Recipe

_WINDOW = 50  # steps between two looks at the loss, each of which waits for the device


class Figures(NamedTuple):
    """One step's figures, scalars on the device."""

    loss: Tensor
    penalty: Tensor
    strength: Tensor


@dataclass(frozen=True)
class Trained:
    """A network, and what its training was like.

    Attributes:
        network: in evaluation mode.
        steps: optimiser steps taken.
        seconds: they took, by the clock.
        cpu_seconds: they took of this process's CPU time, which other processes do not disturb.
        loss: mean cross entropy of the last 50 steps (at most).
        strength: psi at the end, 0 without a penalty.
    """

    network: nn.Module
    steps: int
    seconds: float
    cpu_seconds: float
    loss: float
    strength: float

    def to_dict(self) -> dict[str, Any]:
        """All but the network."""
        return {name: value for name, value in vars(self).items() if name != "network"}


class Training:
    """Everything that a run changes.

    Args:
        recipe: what is trained.
        part: images to train on, on the device to train on.
        seed: of weights, order, augmentation and draws.
        compile_mode: ``torch.compile``'s mode for the network and its penalty; ``None`` leaves them uncompiled.
            ``"reduce-overhead"`` captures CUDA graphs. Attacks always run uncompiled.

    Attributes:
        network: the one that is trained.
        step: steps taken.
        steps: that the recipe has.

    Raises:
        InvalidInputError: fewer images than a batch has.
    """

    def __init__(self, recipe: Recipe, part: Part, *, seed: int, compile_mode: str | None = None) -> None:
        if len(part) < recipe.batch_size:
            raise InvalidInputError(f"batch_size: expected at most the {len(part)} images, got {recipe.batch_size}")
        device = part.images.device
        self.recipe, self.part, self.seed, self.step = recipe, part, seed, 0
        self.steps = max(1, round(recipe.epochs * (len(part) // recipe.batch_size)))
        self.network = build_network(recipe, seed=seed).to(device)
        if device.type == "cuda":
            self.network = self.network.to(memory_format=torch.channels_last)
        self._augmentation = torch.Generator(device).manual_seed(seed)
        self.regularizer = _regularizer(recipe, torch.Generator().manual_seed(seed + 1))
        self.adversary = adversary_of(recipe, torch.Generator().manual_seed(seed + 2))
        self._module = _compiled(self.network, self.regularizer, compile_mode)
        self._optimizer = torch.optim.SGD(
            self.network.parameters(), recipe.learning_rate, momentum=recipe.momentum, weight_decay=recipe.weight_decay
        )
        self._average = RunningAverage(self.network, recipe.average) if recipe.average else None
        self._batches = self._endless()

    def take_step(self) -> Figures:
        """One step on the next batch."""
        inputs, labels = next(self._batches)
        self._module.train()
        if self.adversary is not None:
            inputs = self.adversary(self.network, inputs, labels)
        figures = self._gradients(inputs, labels)
        for group in self._optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * pace(self.recipe, self.step, self.steps)
        self._optimizer.step()
        self._optimizer.zero_grad()
        if self._average is not None:
            self._average.update(self.network)
        self.step += 1
        return figures

    def finish(self, *, show_progress: bool = False) -> Trained:
        """All steps that are left.

        Args:
            show_progress: a bar with loss and strength.
        """
        began, cpu_began, taken = time.perf_counter(), time.process_time(), 0
        recent: list[Tensor] = []
        strength = torch.zeros(())
        with tqdm(total=self.steps - self.step, disable=not show_progress, unit="step") as bar:
            while self.step < self.steps:
                loss, _, strength = self.take_step()
                recent = [*recent[1 - _WINDOW :], loss]
                taken += 1
                if taken % _WINDOW == 0:
                    bar.update(_WINDOW)
                    bar.set_postfix(loss=f"{float(torch.stack(recent).mean()):.3f}", strength=f"{float(strength):.4g}")
        # Waits for the device, before the clock is read.
        last = float(torch.stack(recent).mean()) if recent else float("nan")
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
        return Trained(self.measured(), self.step, seconds, cpu, last, float(strength))

    def measured(self) -> nn.Module:
        """The network to measure, in evaluation mode: of averaged weights where the recipe averages."""
        network = self.network if self._average is None else self._average.network
        return network.eval().requires_grad_(requires_grad=False)

    def _gradients(self, inputs: Tensor, labels: Tensor) -> Figures:
        if self.regularizer is None:
            loss = F.cross_entropy(self._module(inputs), labels)
            loss.backward()
            nothing = torch.zeros_like(loss)
            return Figures(loss.detach(), nothing, nothing)
        logits, penalty = self._module(inputs, labels)
        output = self.regularizer.combine(penalty, task_loss=F.cross_entropy(logits, labels))
        output.loss.backward()
        return Figures(F.cross_entropy(logits.detach(), labels), penalty.detach(), output.strength.detach())

    def _endless(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from shuffled(self.part, self.recipe.batch_size, self._augmentation)


def pace(recipe: Recipe, step: int, steps: int) -> float:
    """The learning rate of a step, as a share of the largest one."""
    done = step / steps
    if recipe.schedule == "steps":  # at epochs 170 and 195 of 200, as published
        return 1.0 if done < 170 / 200 else 0.1 if done < 195 / 200 else 0.01
    return min((step + 1) / (0.2 * steps), (steps - step) / (0.8 * steps), 1.0)


def _regularizer(recipe: Recipe, generator: torch.Generator) -> LipschitzRegularizer | None:
    if recipe.target_loss is None:
        return None
    strength = AdaptiveStrength(
        target_loss=recipe.target_loss,
        initial=recipe.initial_strength,
        gain=recipe.gain,
        rise=recipe.rise,
        fall=recipe.fall,
    )
    return LipschitzRegularizer(
        strength=strength, every=recipe.every, tandem_probability=recipe.tandem_probability, generator=generator
    )


def _compiled(network: nn.Module, regularizer: LipschitzRegularizer | None, mode: str | None) -> nn.Module:
    if regularizer is None:
        return network if mode is None else torch.compile(network, mode=mode)  # type: ignore[return-value]
    module = RegularizedModule(network, regularizer)
    if mode is not None:
        module.compile(mode=mode)
    return module
