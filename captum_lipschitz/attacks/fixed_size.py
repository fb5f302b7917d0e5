"""An attack of given size, anybody's, made minimal: run at the smallest size that succeeds, found for each image."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from captum_lipschitz._trace import seeded
from captum_lipschitz._typing import Model
from captum_lipschitz.attacks.base import Attack, Found
from captum_lipschitz.attacks.bisection import check_search, smallest_perturbations
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds, Norm


class SizedAttack(Protocol):
    """An attack of given size, which any function of these four arguments is."""

    def __call__(self, model: Model, inputs: Tensor, labels: Tensor, sizes: Tensor, /) -> Tensor:
        """Adversarial images, (N, ...), of images (N, ...) with labels, each changed by at most its own size.

        Args:
            model: maps images to logits; in evaluation mode, with gradients enabled. Gradients reach the images
                only, so that ``backward()`` leaves nothing in the model's parameters.
            inputs: (N, ...), within the bounds.
            labels: (N,), or as the criterion has them.
            sizes: (N,), positive, in the norm's units; for an attack that takes one size, N is 1.
        """


class FixedSizeAttack(Attack):
    """Turns an attack of given size into a minimal one: each image at the smallest size that succeeds.

    An image's first size is its linearised distance to the boundary, at most a tenth of the largest. It
    is doubled until the attack succeeds, then bisected between the largest failure and the smallest success. After
    each run the model is run on the answers: what the attack says of its success is not asked, and a success counts
    with the size that it really has. Images that are done leave the batch. Attacks need not succeed at every size above
    the smallest, so the answer is an upper bound, as every attack's is.

    ``gradient_evaluations`` counts the backward passes through the model that an image took part in: a pass over M
    rows in a run on n images counts M / n for each of the n (rounded up), and one is added for the linearisation.

    The attack is told the images and labels, not the criterion; what it returns is judged by the criterion. Torch's
    global random state is seeded anew for each run, and restored afterwards: the same call gives the same answer, also
    in several threads, whose runs take turns. A random attack draws for the batch as a whole; with ``one_size=True``
    an image's answer does not depend on its neighbours even so.

    Args:
        attack: ``attack(model, inputs, labels, sizes)``, returning adversarial images, see ``SizedAttack``.
        one_size: for attacks that take one size for a whole batch, or whose images influence each other: the
            attack is called with one image at a time, and ``float(sizes)`` is the size.
        tolerance: an image is done where the interval is this small relative to its upper end, in (0, 1).
        rounds: runs for each image at most, at least 1.
        largest: the size after which an image is given up, in the norm's units; ``None`` takes the way to the
            bounds' farthest corner; without bounds, 1024 times the linearised distance.
        seed: of torch's global random state during each run.
        norm: see ``Attack``; what ``sizes`` are given in.
        bounds: see ``Attack``; answers of the attack are clamped to them.

    Raises:
        InvalidInputError, InvalidTypeError: for a setting that cannot be used; when called, also for an attack that
            returns something other than images.

    Example:
        One step along the gradient's sign (FGSM), at the smallest size that fools a linear model:

        >>> def fast_gradient_sign(model, inputs, labels, sizes):
        ...     inputs = inputs.clone().requires_grad_()
        ...     torch.nn.functional.cross_entropy(model(inputs), labels, reduction="sum").backward()
        ...     return inputs.detach() + sizes[:, None] * inputs.grad.sign()
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> attack = FixedSizeAttack(fast_gradient_sign, norm="linf")
        >>> result = attack(model, torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.5)

    References:
        Goodfellow, Shlens and Szegedy 2015, arXiv 1412.6572, and Madry et al. 2018, arXiv 1706.06083 (attacks of
        given size).
    """

    def __init__(
        self,
        attack: SizedAttack,
        *,
        one_size: bool = False,
        tolerance: float = 0.01,
        rounds: int = 40,
        largest: float | None = None,
        seed: int = 0,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = None,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if isinstance(attack, type) or not callable(attack):
            raise InvalidTypeError(
                f"attack: expected attack(model, inputs, labels, sizes) that returns adversarial images, got {attack!r}"
            )
        if isinstance(attack, Attack):
            raise InvalidTypeError(
                "attack: expected one of given size, attack(model, inputs, labels, sizes), got "
                f"{type(attack).__name__}, which chooses sizes itself"
            )
        check_search(tolerance=tolerance, rounds=rounds, largest=largest)
        self.attack = attack
        self.one_size = one_size
        self.tolerance = tolerance
        self.rounds = rounds
        self.largest = largest
        self.seed = seed

    def search(self, problem: Problem) -> Found:
        return smallest_perturbations(
            problem,
            self._run,
            norm=self.norm,
            tolerance=self.tolerance,
            rounds=self.rounds,
            largest=self.largest,
        )

    def _run(self, problem: Problem, rows: Tensor, sizes: Tensor) -> tuple[Tensor, Tensor]:
        del rows
        if not self.one_size:
            return self._together(problem, sizes)
        index = torch.arange(len(problem), device=sizes.device)
        alone = [self._together(problem.rows(i), sizes[i]) for i in index.split(1)]
        return torch.cat([perturbation for perturbation, _ in alone]), torch.cat([spent for _, spent in alone])

    def _together(self, problem: Problem, sizes: Tensor) -> tuple[Tensor, Tensor]:
        model = GuardedModel(problem.model)
        with seeded(self.seed, problem.inputs.device):
            images = self.attack(model, problem.inputs.clone(), problem.labels.clone(), sizes.clone())
        if not isinstance(images, Tensor) or images.shape != problem.inputs.shape:
            got = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
            raise InvalidInputError(
                f"attack: expected adversarial images of shape {tuple(problem.inputs.shape)} from it, got {got}"
            )
        inputs = problem.inputs
        spent = torch.tensor(-(-model.backward_rows // len(problem)), device=inputs.device)
        return images.detach().to(inputs) - inputs, spent.expand(len(problem))


class GuardedModel:
    """A model for foreign hands: gradients end at the images, and backward passes are counted.

    Args:
        model: maps images (N, ...) to logits (N, C).

    Attributes:
        backward_rows: images that gradients were taken at so far; one that was run through again counts again.
    """

    def __init__(self, model: Model) -> None:
        self._model = model
        self.backward_rows = 0

    def __call__(self, images: Tensor) -> Tensor:
        if not (torch.is_grad_enabled() and images.requires_grad):
            with torch.no_grad():
                return self._model(images)
        logits: Tensor = _InputGradientOnly.apply(images, self)
        return logits

    def with_graph(self, leaf: Tensor) -> Tensor:
        """The logits of a leaf, with the model's own graph."""
        return self._model(leaf)


class _InputGradientOnly(torch.autograd.Function):
    """A model whose backward pass ends at its images: ``backward()`` would fill ``.grad`` of the parameters."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, model: GuardedModel) -> Tensor:
        with torch.enable_grad():
            leaf = images.detach().requires_grad_()
            logits = model.with_graph(leaf)
        ctx.leaf, ctx.logits, ctx.model = leaf, logits, model
        return logits.detach()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        ctx.model.backward_rows += len(ctx.leaf)
        (gradient,) = torch.autograd.grad(ctx.logits, ctx.leaf, gradients[0], retain_graph=True)
        return gradient.contiguous(), None  # channels-last networks give gradients that view() refuses
