"""Penalty and strength together, as one callable that a training loop adds to its loss."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training.penalty import draw, lipschitz_penalty
from captum_lipschitz.training.strength import FixedStrength, StrengthController

_SEED_MASK = 0x5A17_C0DE_2019  # keeps the default generator's stream apart from the one that seeded the weights


class RegularizerOutput(NamedTuple):
    """One step's figures, all scalars.

    Attributes:
        penalty: the Lipschitz penalty, at least 0; exactly 0 on a step that ``every`` skips.
        strength: the controller's psi (before the factor ``every``), detached.
        loss: what to call ``backward()`` on: ``task_loss + every * strength * penalty``; on a skipped step the task
            loss.
    """

    penalty: Tensor
    strength: Tensor
    loss: Tensor


class LipschitzRegularizer:
    """The paper's training regularizer.

    Args:
        strength: psi: a number, or a controller such as ``AdaptiveStrength(target_loss=1.5)``.
        power: z, positive. The paper's best is 2.
        tandem_probability: zeta, in [0, 1]: how often the true logit minus the largest other is drawn.
        every: form the penalty on each k-th step only (the first included), with k times the strength.
        multi_label: labels are 1, 0 and -1 (unknown), (N, C), see ``lipschitz_penalty``.
        accumulation_steps: micro-batches that make one optimiser step; ``None`` if the loop says so by calling
            ``step()`` after each ``optimizer.step()``.
        generator: source of the draws; ``None`` makes one, on the CPU, from torch's current seed.

    The strength is the same throughout an optimiser step, whose mean loss the controller sees. Of a single batch it is
    known in time, as published: the controller moves first. Of several it is known only after the last one, so they
    have the strength that the step before left (a ramp's, which does not depend on losses, is their own).

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 3))
        >>> regularizer = LipschitzRegularizer(strength=0.1)
        >>> inputs, labels = torch.rand(8, 4, requires_grad=True), torch.zeros(8, dtype=torch.long)
        >>> logits = model(inputs)
        >>> task_loss = torch.nn.functional.cross_entropy(logits, labels)
        >>> output = regularizer(logits, inputs, labels, task_loss=task_loss)
        >>> output.loss.backward()

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self,
        *,
        strength: float | StrengthController,
        power: float = 2,
        tandem_probability: float = 0.2,
        every: int = 1,
        multi_label: bool = False,
        accumulation_steps: int | None = 1,
        generator: torch.Generator | None = None,
    ) -> None:
        if not power > 0:
            raise InvalidInputError(f"power: expected a positive exponent, got {power}")
        if not 0 <= tandem_probability <= 1:
            raise InvalidInputError(f"tandem_probability: expected a value in [0, 1], got {tandem_probability}")
        if every < 1:
            raise InvalidInputError(f"every: expected at least 1, got {every}")
        if accumulation_steps is not None and accumulation_steps < 1:
            raise InvalidInputError(f"accumulation_steps: expected at least 1 or None, got {accumulation_steps}")
        self.controller = _as_controller(strength)
        self.power = power
        self.tandem_probability = tandem_probability
        self.every = every
        self.multi_label = multi_label
        self.accumulation_steps = accumulation_steps
        self.generator = generator or torch.Generator().manual_seed(torch.initial_seed() ^ _SEED_MASK)
        self._steps = 0
        self._losses: list[Tensor] = []  # of the micro-batches of a step that is not complete yet

    def __call__(self, logits: Tensor, inputs: Tensor, labels: Tensor, *, task_loss: Tensor) -> RegularizerOutput:
        """Form the regularised loss of a batch, or of one of an optimiser step's micro-batches.

        Args:
            logits: (N, C), computed from ``inputs``.
            inputs: (N, ...), with ``requires_grad`` set before the forward pass.
            labels: integer classes, (N,); class probabilities, (N, C); or sets of labels, see ``lipschitz_penalty``.
            task_loss: the batch's mean cross entropy, a scalar, not yet divided by the number of micro-batches. In
                several processes the controller sees its mean over them, so all of them must call.

        Raises:
            As ``lipschitz_penalty``; then neither the controller nor the draws have advanced.
        """
        if not isinstance(task_loss, Tensor) or task_loss.numel() != 1:
            raise InvalidTypeError(f"task_loss: expected a scalar tensor, got {task_loss!r}")
        due = self._steps % self.every == 0
        penalty = self._penalty(logits, inputs, labels) if due else torch.zeros_like(task_loss, requires_grad=False)
        if self.accumulation_steps == 1:
            strength = self.controller.update(_mean_over_processes(task_loss.detach()))
            self._steps += 1
        else:
            strength = self.controller.upcoming(task_loss.device)
            self._losses.append(task_loss.detach())
            if len(self._losses) == self.accumulation_steps:
                self.step()
        strength = strength.to(torch.promote_types(task_loss.dtype, torch.float32))
        loss = task_loss + (self.every * strength * penalty).to(task_loss.dtype) if due else task_loss
        return RegularizerOutput(penalty, strength, loss)

    def step(self) -> None:
        """End an optimiser step: the controller sees the mean loss of its micro-batches.

        Called by itself after ``accumulation_steps`` of them; call it where a step has fewer, as at the end of an
        epoch, and always with ``accumulation_steps=None``. In several processes all of them must. Without a micro-batch
        since the last step nothing happens.
        """
        if self._losses:
            self.controller.update(_mean_over_processes(torch.stack(self._losses).mean()))
            self._losses = []
            self._steps += 1

    def _penalty(self, logits: Tensor, inputs: Tensor, labels: Tensor) -> Tensor:
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise InvalidTypeError(f"logits: expected a tensor of shape (N, C), got {getattr(logits, 'shape', logits)}")
        before = self.generator.get_state()
        draws = draw(
            len(logits),
            logits.shape[1],
            tandem_probability=self.tandem_probability,
            generator=self.generator,
            device=logits.device,
        )
        try:
            return lipschitz_penalty(
                logits, inputs, labels, draws=draws, power=self.power, multi_label=self.multi_label
            )
        except BaseException:
            self.generator.set_state(before)
            raise

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold: the controller, the generator's state, the number of optimiser steps.

        Micro-batches of a step that is not complete are not in it, as their gradients are in no checkpoint either.
        """
        return {
            "controller": self.controller.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self._steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer.

        Raises:
            InvalidInputError: the state is not a regularizer's.
        """
        missing = {"controller", "generator", "steps"} - set(state)
        if missing:
            raise InvalidInputError(f"state: expected a LipschitzRegularizer's state_dict, missing {sorted(missing)}")
        self.controller.load_state_dict(state["controller"])
        self.generator.set_state(state["generator"].cpu())
        self._steps = int(state["steps"])
        self._losses = []


def _mean_over_processes(loss: Tensor) -> Tensor:
    """The loss's mean over all training processes, so that every one of them has the same strength."""
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()) or distributed.get_world_size() == 1:
        return loss
    mean = loss.clone()
    distributed.all_reduce(mean)
    return mean / distributed.get_world_size()


def _as_controller(strength: float | StrengthController) -> StrengthController:
    if isinstance(strength, StrengthController):
        return strength
    if isinstance(strength, (int, float)) and not isinstance(strength, bool):
        return FixedStrength(strength)
    raise InvalidTypeError(f"strength: expected a number or a controller, got {type(strength).__name__}")
