"""Penalty and strength together, as one callable that a training loop adds to its loss."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz.training.bursts import BurstWatch
from captum_lipschitz.training.estimators import expected_penalty, mean_penalty
from captum_lipschitz.training.graph import parameters, refuse_to_be_compiled
from captum_lipschitz.training.penalty import PenaltyDraws, Positions, draw_positions
from captum_lipschitz.training.processes import ProcessWatch, process_rank
from captum_lipschitz.training.strength import FixedStrength, StrengthController

_FORGOTTEN = 1000  # micro-batches that no optimiser step is made of
_SEED_MASK = 0x5A17_C0DE_2019  # keeps the default generator's stream apart from the one that seeded the weights


class RegularizerOutput(NamedTuple):
    """One step's figures, all scalars.

    Attributes:
        penalty: the Lipschitz penalty, at least 0; exactly 0 on a step that ``every`` skips. At another number of input
            features than the first batch had it is multiplied by their ratio to the ``power``.
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
        every: form the penalty on each k-th step only (the first included), with k times the strength. Unbiased over k
            steps; an optimiser that is not linear in the gradient (Adam, clipping) sees bursts: then there is a
            warning.
        draws_per_image: the mean over so many draws, each with a gradient of its own; ``"all"`` for the expectation
            over all classes, see ``expected_penalty``.
        multi_label: labels are 1, 0 and -1 (unknown), (N, C), see ``lipschitz_penalty``.
        accumulation_steps: micro-batches that make one optimiser step; ``None`` if the loop says so by calling
            ``step()`` after each ``optimizer.step()``.
        process_group: the ``torch.distributed`` processes that train the same parameters; ``None`` for all.
        generator: source of the draws; ``None`` makes one, on the CPU, from torch's current seed and the process's
            rank.

    The strength is the same throughout an optimiser step, whose mean loss the controller sees. Of a single batch it is
    known in time, as published: the controller moves first. Of several it is known only after the last one, so they
    have the strength that the step before left (a ramp's, which does not depend on losses, is their own).

    The strength follows a change of resolution. A network's slope by a single pixel falls with their number, as each
    stands for a smaller part of the image, so the penalty of a batch with n input features per image is multiplied by
    ``(n / n_0) ** power``, where n_0 is the first batch's (in ``state_dict``).

    Under several processes ``UnsupportedTrainingError`` is raised where their parameters have drifted apart, see
    ``ProcessWatch``.

    Raises:
        InvalidInputError, InvalidTypeError: a setting that cannot be used.

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
        draws_per_image: int | Literal["all"] = 1,
        multi_label: bool = False,
        accumulation_steps: int | None = 1,
        process_group: torch.distributed.ProcessGroup | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        if not power > 0:
            raise InvalidInputError(f"power: expected a positive exponent, got {power}")
        if not 0 <= tandem_probability <= 1:
            raise InvalidInputError(f"tandem_probability: expected a value in [0, 1], got {tandem_probability}")
        if every < 1:
            raise InvalidInputError(f"every: expected at least 1, got {every}")
        if draws_per_image != "all" and (not isinstance(draws_per_image, int) or draws_per_image < 1):
            raise InvalidInputError(f"draws_per_image: expected at least 1 or 'all', got {draws_per_image!r}")
        if accumulation_steps is not None and accumulation_steps < 1:
            raise InvalidInputError(f"accumulation_steps: expected at least 1 or None, got {accumulation_steps}")
        self.controller = _as_controller(strength)
        self.power = power
        self.tandem_probability = tandem_probability
        self.every = every
        self.draws_per_image = draws_per_image
        self.multi_label = multi_label
        self.accumulation_steps = accumulation_steps
        seed = (torch.initial_seed() ^ _SEED_MASK) + process_rank()
        self.generator = generator or torch.Generator().manual_seed(seed)
        self._steps = 0
        self._loss: Tensor | None = None  # summed over the micro-batches of a step that is not complete yet
        self._micro_batches = 0
        self._features: int | None = None  # of an image of the first batch
        self._watch = ProcessWatch(process_group)
        self._bursts = BurstWatch(every)

    @property
    def due(self) -> bool:
        """Whether the current optimiser step has a penalty, or ``every`` skips it."""
        return self._steps % self.every == 0

    def __call__(self, logits: Tensor, inputs: Tensor, labels: Tensor, *, task_loss: Tensor) -> RegularizerOutput:
        """Form the regularised loss of a batch, or of one of an optimiser step's micro-batches.

        Args:
            logits: (N, C), computed from ``inputs``.
            inputs: (N, ...), with ``requires_grad`` set before the forward pass.
            labels: integer classes, (N,); class probabilities, (N, C); or sets of labels, see ``lipschitz_penalty``.
            task_loss: the batch's mean cross entropy, a scalar, not yet divided by the number of micro-batches, nor
                multiplied by a GradScaler. In several processes the controller sees its mean over them, so all of them
                must call.

        Returns:
            Penalty, strength and the loss to call ``backward()`` on, as a ``RegularizerOutput`` of scalars.

        Raises:
            InvalidInputError, InvalidTypeError, ModelOutputError, DisconnectedModelError: as ``lipschitz_penalty``;
                then neither the controller nor the draws have advanced, nor after Ctrl-C.
        """
        refuse_to_be_compiled()
        _check_task_loss(task_loss)
        back = self._way_back()
        try:
            return self.combine(self.penalty(logits, inputs, labels), task_loss=task_loss)
        except BaseException:  # Ctrl-C too
            back()
            raise

    def penalty(
        self, logits: Tensor, inputs: Tensor, labels: Tensor, *, draws: Sequence[PenaltyDraws] | None = None
    ) -> Tensor:
        """The penalty alone, a scalar, for this optimiser step; 0 where ``every`` skips it. See ``combine``.

        Args:
            logits: (N, C), computed from ``inputs``.
            inputs: (N, ...), with ``requires_grad`` set before the forward pass.
            labels: as in a call.
            draws: what to differentiate, in place of the generator's draws.

        Returns:
            A scalar, at least 0, with its graph.

        Raises:
            InvalidInputError, InvalidTypeError, ModelOutputError, DisconnectedModelError: as ``lipschitz_penalty``;
                then the draws have not advanced.
        """
        if not self.due:
            return torch.zeros((), device=logits.device)
        if not isinstance(logits, Tensor) or logits.dim() != 2:
            raise InvalidTypeError(f"logits: expected a tensor of shape (N, C), got {getattr(logits, 'shape', logits)}")
        before = self.generator.get_state()
        try:
            if draws is None:
                draws = [one.of(logits.shape[1]) for one in self.draw(len(logits), logits.device)]
            penalty = self.form_penalty(logits, inputs, labels, draws) * self.resolution_factor(inputs)
        except BaseException:
            self.generator.set_state(before)
            raise
        self.observe(parameters(logits) if self.wants_parameters() else ())
        return penalty

    def draw(self, num_images: int, device: torch.device | str) -> list[Positions]:
        """The next step's draws, from the generator: one for each of ``draws_per_image``, none for ``"all"``."""
        count = 0 if isinstance(self.draws_per_image, str) else self.draws_per_image
        zeta = self.tandem_probability
        return [
            draw_positions(num_images, tandem_probability=zeta, generator=self.generator, device=device)
            for _ in range(count)
        ]

    def form_penalty(self, logits: Tensor, inputs: Tensor, labels: Tensor, draws: Sequence[PenaltyDraws]) -> Tensor:
        """The penalty of given draws, a scalar, in units of these inputs' own resolution: a pure function.

        Args:
            logits: (N, C), computed from ``inputs``.
            inputs: (N, ...), with ``requires_grad``.
            labels: as in a call.
            draws: what to differentiate; not looked at where all classes are.

        Returns:
            A scalar, at least 0, with its graph.
        """
        if isinstance(self.draws_per_image, str):
            zeta = self.tandem_probability
            return expected_penalty(
                logits, inputs, labels, tandem_probability=zeta, power=self.power, multi_label=self.multi_label
            )
        return mean_penalty(logits, inputs, labels, draws=draws, power=self.power, multi_label=self.multi_label)

    def resolution_factor(self, inputs: Tensor) -> float:
        """What these inputs' penalty is multiplied by; the first inputs ever seen set the scale, with 1."""
        features = inputs[0].numel()
        if self._features is None:
            self._features = self._watch.first(features, inputs.device)
        return float((features / self._features) ** self.power)

    def wants_parameters(self) -> bool:
        """Whether ``observe`` should be told the parameters that are trained."""
        return self._watch.wants_parameters() or self._bursts.wants_parameters()

    def observe(self, trained: Sequence[Tensor]) -> None:
        """Take note of what is trained: compared between processes, and its optimiser looked at where ``every`` > 1."""
        if trained and self._watch.wants_parameters():
            self._watch.watch(trained)
        if trained and self._bursts.wants_parameters():
            self._bursts.watch(trained)

    def combine(self, penalty: Tensor, *, task_loss: Tensor) -> RegularizerOutput:
        """Put a penalty and its batch's task loss together, and let the controller see the loss.

        Args:
            penalty: a scalar, from ``penalty`` or from the forward pass of a ``RegularizedModule``.
            task_loss: the batch's mean loss, as in a call.

        Returns:
            The same figures as a call: ``backward()`` goes on ``loss``.

        Raises:
            InvalidTypeError: one of them is no scalar.
            UnsupportedTrainingError: the parameters of several processes have drifted apart.
        """
        _check_task_loss(task_loss)
        if not isinstance(penalty, Tensor) or penalty.numel() != 1:
            raise InvalidTypeError(f"penalty: expected a scalar tensor, got {penalty!r}")
        due = self.due or penalty.requires_grad  # formed when it was due, before another batch ended the step
        if self.accumulation_steps == 1:
            strength = self.controller.update(self._watch.mean(task_loss.detach()))
            self._advance()
        else:
            strength = self.controller.upcoming(task_loss.device)
            self._gather(task_loss.detach())
        strength = strength.to(torch.promote_types(task_loss.dtype, torch.float32))
        loss = task_loss + self.every * strength * penalty if due else task_loss
        return RegularizerOutput(penalty, strength, loss)

    def step(self) -> None:
        """End an optimiser step: the controller sees the mean loss of its micro-batches.

        Called by itself after ``accumulation_steps`` of them; call it where a step has fewer, as at the end of an
        epoch, and always with ``accumulation_steps=None``. In several processes all of them must. Without a micro-batch
        since the last step nothing happens.
        """
        if self._loss is not None:
            self.controller.update(self._watch.mean(self._loss / self._micro_batches))
            self._loss, self._micro_batches = None, 0
            self._advance()

    def _way_back(self) -> Callable[[], None]:
        """To where the draws, the steps and the controller stand now: a step torn by Ctrl-C counts for none of them."""
        draws, own = self.generator.get_state(), dict(vars(self))
        controller = dict(getattr(self.controller, "__dict__", {}))

        def back() -> None:
            vars(self).update(own)
            if controller:
                vars(self.controller).update(controller)
            self.generator.set_state(draws)

        return back

    def _gather(self, task_loss: Tensor) -> None:
        self._loss = task_loss if self._loss is None else self._loss + task_loss
        self._micro_batches += 1
        if self._micro_batches == self.accumulation_steps:
            self.step()
        elif self.accumulation_steps is None and self._micro_batches == _FORGOTTEN:
            warnings.warn(
                f"LipschitzRegularizer(accumulation_steps=None): {_FORGOTTEN} micro-batches without a call of step(), "
                "so the strength stands still and every= skips nothing; call regularizer.step() after optimizer.step()",
                CaptumLipschitzWarning,
                stacklevel=4,
            )

    def _advance(self) -> None:
        self._bursts.next_step(due=self.due)
        self._steps += 1

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold: controller, generator, optimiser steps, number of input features.

        Micro-batches of a step that is not complete are not in it, as their gradients are in no checkpoint either.
        In several processes the generators differ, so each saves its own; all of them may load one process's, and then
        draw alike, which is right but less various.
        """
        return {
            "controller": self.controller.state_dict(),
            "generator": self.generator.get_state(),
            "steps": self._steps,
            "features": self._features,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer.

        Raises:
            InvalidInputError: the state is not a regularizer's.
        """
        missing = {"controller", "generator", "steps"} - set(state)
        if missing:
            raise InvalidInputError(f"state: expected a LipschitzRegularizer's state_dict, missing {sorted(missing)}")
        if not isinstance(state["generator"], Tensor) or not isinstance(state["steps"], int):
            raise InvalidInputError("state: expected a generator's state, a tensor, and a whole number of steps")
        before = self.generator.get_state()
        try:
            self.generator.set_state(state["generator"].cpu())
            self.controller.load_state_dict(state["controller"])
        except BaseException:
            self.generator.set_state(before)
            raise
        self._steps = state["steps"]
        self._features = state.get("features")
        self._loss, self._micro_batches = None, 0


def _check_task_loss(task_loss: object) -> None:
    if not isinstance(task_loss, Tensor) or task_loss.numel() != 1:
        raise InvalidTypeError(f"task_loss: expected a scalar tensor, got {task_loss!r}")


def _as_controller(strength: float | StrengthController) -> StrengthController:
    if isinstance(strength, StrengthController):
        return strength
    if isinstance(strength, (int, float)) and not isinstance(strength, bool):
        return FixedStrength(strength)
    raise InvalidTypeError(f"strength: expected a number or a controller, got {type(strength).__name__}")
