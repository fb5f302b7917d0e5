"""Adversarial training: in each batch of anybody's loop, some images are replaced by adversarial ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._memory import undivided
from captum_lipschitz._model import check_inputs
from captum_lipschitz._trace import no_trace, seeded, settled
from captum_lipschitz.attacks.base import Attack
from captum_lipschitz.attacks.paper import PaperAttack
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import rowwise
from captum_lipschitz.training.attach import uncounted
from captum_lipschitz.training.wrapped import attacked_network, refuse_waiting

_SEED_MASK = 0xADE5_C0DE_2019  # keeps the default generator apart from the weights' and from the regularizer's
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class AdversarialTraining:
    """Replaces some images of a batch by adversarial ones, to train on.

    Each image is chosen with ``probability``; the chosen ones, and no others, go through the attack together, so that
    half-and-half costs half. A chosen image for which a minimal attack finds nothing stays clean to the bit, as does
    one that meets the criterion already. An attack of fixed size, ``PaperAttack(mode="fixed")``, has no such case: its
    perturbed image is trained on whether or not it meets the criterion, as published.

    With ``batch_statistics``, as published, the attack sees the network in the mode that it is in: BatchNorm in train
    mode takes the statistics of the images that the attack runs together, which for ``PaperAttack`` are all chosen
    ones at every step; dropout is active. Without, it sees the network in evaluation mode, where an image's answer
    does not depend on its neighbours: better suited to attacks that drop solved images on the way, such as
    ``MinimumNormAttack``. (Where an attack runs a single image through BatchNorm in train mode, which may refuse it,
    the batch's first two clean images go along.) Either way everything is put back: modes, running averages, gradients,
    hooks, the global random state, also after an error or Ctrl-C. What an attack finds is not verified once more, as
    the statistics of the training pass are others anyway. Out of memory is an error here: an attack on half as many
    images would be another one, as their statistics would be.

    A ``DistributedDataParallel``, a ``torch.compile``d network or a ``RegularizedModule`` is attacked through the
    network inside it: the forward pass of the first would wait for a backward pass that never comes, and the second
    would be compiled for each number of images. A regularizer attached by ``attach_regularizer`` does not count the
    attack's gradients.

    Args:
        attack: any ``Attack``; ``None`` is the paper's "L2,min" in 7 steps with a budget of 0.1, without momentum:
            ``PaperAttack(mode="minimal", steps=7, rho=0.1, momentum=0.0, objective="cross_entropy")``. Its fixed-size
            one is ``PaperAttack(mode="fixed", steps=7, rho=0.01, momentum=0.0, objective="cross_entropy")``. With batch
            statistics ``"log_odds"`` is another attack, as confident images then pull on their neighbours too.
        probability: of being chosen, for each image, in [0, 1].
        criterion: what an attack aims at: ``"misclassified"``, ``"below_chance"`` or a ``Criterion`` object. For
            several labels, ``"label_flips"`` with a ``MinimumNormAttack``.
        batch_statistics: attack the network in the mode that it is in, instead of in evaluation mode.
        generator: what choices, and dropout during the attack, are drawn from; ``None`` makes one, on the CPU, from
            torch's current seed.

    Attributes:
        last_replaced: (N,) bool, which images of the last batch were changed, or ``None``.

    Raises:
        InvalidInputError, InvalidTypeError: for a setting that cannot be used.

    Example:
        Composed with the penalty:

        >>> from captum_lipschitz.training.adversarial import AdversarialTraining
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.BatchNorm1d(16), torch.nn.Linear(16, 3))
        >>> adversary, regularizer = AdversarialTraining(), LipschitzRegularizer(strength=0.1)
        >>> inputs, labels = torch.rand(8, 4), torch.zeros(8, dtype=torch.long)
        >>> inputs = adversary(model, inputs, labels).requires_grad_()
        >>> logits = model(inputs)
        >>> task_loss = torch.nn.functional.cross_entropy(logits, labels)
        >>> regularizer(logits, inputs, labels, task_loss=task_loss).loss.backward()

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods ("half-and-half", "L2,min"); Madry et al. 2018,
        arXiv 1706.06083 (adversarial training); Xie et al. 2020, arXiv 1911.09665 (batch statistics of clean and
        adversarial images differ).
    """

    def __init__(
        self,
        *,
        attack: Attack | None = None,
        probability: float = 0.5,
        criterion: Criterion | str = "misclassified",
        batch_statistics: bool = True,
        generator: torch.Generator | None = None,
    ) -> None:
        if attack is not None and not isinstance(attack, Attack):
            raise InvalidTypeError(f"attack: expected an Attack object or None, got {attack!r}")
        if not 0 <= probability <= 1:
            raise InvalidInputError(f"probability: expected a value in [0, 1], got {probability}")
        self.attack = attack or PaperAttack(mode="minimal", steps=7, rho=0.1, momentum=0.0, objective="cross_entropy")
        self.probability = probability
        self.criterion = as_criterion(criterion)
        self.batch_statistics = batch_statistics
        self.generator = generator or torch.Generator().manual_seed(torch.initial_seed() ^ _SEED_MASK)
        self.last_replaced: Tensor | None = None

    def __call__(self, model: nn.Module, inputs: Tensor, labels: Tensor) -> Tensor:
        """The batch to train on.

        Args:
            model: takes inputs, (N, ...), and returns logits, (N, C); in whatever mode, usually train mode.
            inputs: floating, finite, (N, ...), within the attack's bounds where it has any. Half precision is attacked
                in float32, through the model in its own precision, and rounded at the end.
            labels: integer classes, (N,); for ``"label_flips"`` 1, 0 and -1 (unknown), (N, K).

        Returns:
            A new tensor like ``inputs``, (N, ...), detached; images that are not replaced are the same to the bit.

        Raises:
            InvalidInputError, InvalidTypeError: for a model, inputs or labels that cannot be used, and for one whose
                processes would wait for each other: in train mode with ``SyncBatchNorm``, or sharded by FSDP.
            ModelOutputError, DisconnectedModelError: for a model without logits or without a gradient. Nothing is
                drawn from the generator then.
        """
        network = attacked_network(model)
        batch = _Batch(network, inputs, labels, self.criterion, batch_statistics=self.batch_statistics)
        self.attack.norm.check(batch.inputs)
        if self.attack.bounds is not None:
            self.attack.bounds.check(batch.inputs)
        refuse_waiting(network, batch_statistics=self.batch_statistics)
        before = self.generator.get_state()
        try:
            rows, seed = self._draw(len(inputs))
            return self._replaced(batch, rows.to(inputs.device), seed)
        except BaseException:  # Ctrl-C too
            self.generator.set_state(before)
            raise

    def state_dict(self) -> dict[str, Any]:
        """All that a checkpoint must hold to go on with the same choices: the generator's state."""
        return {"generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from ``state_dict()``'s answer.

        Raises:
            InvalidInputError: the state is none.
        """
        if "generator" not in state:
            raise InvalidInputError("state: expected an AdversarialTraining's state_dict, missing ['generator']")
        self.generator.set_state(state["generator"].cpu())

    def _draw(self, num_images: int) -> tuple[Tensor, int]:
        """The chosen images, (n,), and a seed for what is random in the network during the attack."""
        device = self.generator.device
        chosen = torch.rand(num_images, generator=self.generator, device=device) < self.probability
        # Dropout from the global state would be the very masks that the training pass draws next.
        seed = torch.randint(2**31, (), generator=self.generator, device=device)
        return chosen.nonzero().squeeze(1), int(seed)

    def _replaced(self, batch: _Batch, rows: Tensor, seed: int) -> Tensor:
        answer = batch.inputs.clone()
        self.last_replaced = torch.zeros(len(answer), dtype=torch.bool, device=answer.device)
        if not len(rows):
            return answer
        evaluation = not self.batch_statistics
        with (
            settled(),
            no_trace(batch.network, answer, evaluation=evaluation),
            uncounted(),
            undivided(),
            seeded(seed, answer.device),
        ):
            problem = batch.problem(rows, self.attack)
            perturbations, used = self._search(problem)
            images = problem.images(perturbations.detach()).to(answer.dtype)
        used &= (images != answer[rows]).flatten(1).any(1)
        answer[rows] = torch.where(rowwise(used, images), images, answer[rows])
        self.last_replaced[rows] = used
        return answer

    def _search(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """Perturbations, (n, ...), and which images take theirs, (n,)."""
        if isinstance(self.attack, PaperAttack):
            # Its walk takes images that meet the criterion already, as published: all share their statistics.
            answer = self.attack.search(problem)
            return answer.perturbations, answer.found | (self.attack.mode == "fixed")
        perturbations = torch.zeros_like(problem.inputs)
        found = problem.value(perturbations) <= 0
        open_rows = (~found).nonzero().squeeze(1)
        if len(open_rows):
            answer = self.attack.search(problem.rows(open_rows))
            perturbations[open_rows] = answer.perturbations
            found[open_rows] = answer.found
        return perturbations, found


class _Batch:
    """A checked batch, and its network as a function of images in at least float32.

    Args:
        network: to be attacked.
        inputs: (N, ...).
        labels: as the criterion has them.
        criterion: the goal.
        batch_statistics: the network stays in the mode that it is in.
    """

    def __init__(
        self, network: nn.Module, inputs: Tensor, labels: Tensor, criterion: Criterion, *, batch_statistics: bool
    ) -> None:
        self.network = network
        self.inputs = check_inputs(inputs).detach()
        _refuse_soft_labels(labels, criterion)
        self.labels = criterion.check_labels(labels, len(inputs)).to(inputs.device)
        self.criterion = criterion
        self.seen = False
        self.neighbours = batch_statistics and any(
            isinstance(module, _BATCH_NORMS) and module.training for module in network.modules()
        )

    def problem(self, rows: Tensor, attack: Attack) -> Problem:
        """What the attack works on: the chosen images, in at least float32."""
        precise = self.inputs[rows].to(torch.promote_types(self.inputs.dtype, torch.float32))
        return Problem(self.logits, precise, self.labels[rows], self.criterion.rows(rows), attack.bounds)

    def logits(self, images: Tensor) -> Tensor:
        """The network's logits of images, (n, ...), some of the batch's in any order."""
        own = images.to(self.inputs.dtype)
        together = torch.cat([own, self.inputs[:2]]) if self.neighbours and len(own) == 1 else own
        logits = self.network(together)
        if not isinstance(logits, Tensor) or not logits.is_floating_point() or logits.dim() != 2:
            return logits  # type: ignore[no-any-return]  # which the problem refuses
        if not self.seen:
            self.criterion.check_labels(self.labels, len(self.inputs), logits.shape[1])
            self.criterion.validate(len(self.inputs), logits.shape[1])
            self.seen = True
        return logits[: len(own)].to(torch.promote_types(logits.dtype, images.dtype))


def _refuse_soft_labels(labels: object, criterion: Criterion) -> None:
    takes_classes = type(criterion).check_labels is Criterion.check_labels
    if takes_classes and isinstance(labels, Tensor) and (labels.dim() == 2 or labels.is_floating_point()):
        raise InvalidTypeError(
            f"labels: expected integer classes (N,), got {labels.dtype} {tuple(labels.shape)}; of class probabilities "
            "pass labels.argmax(1) here (with mixup: before mixing) and keep the probabilities for the loss; for "
            'several labels use criterion="label_flips" with attack=MinimumNormAttack()'
        )
