"""Several attacks as one: image by image, the smallest of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.attacks.base import Attack, AttackResult, Found, verified
from captum_lipschitz.attacks.problem import Problem
from captum_lipschitz.criteria import Criterion
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds, Norm, as_norm


class Member(Protocol):
    """What an ensemble needs of an attack; ``Attack`` and the plugins' attacks have it."""

    def __call__(
        self, model: Model, inputs: Tensor, labels: Tensor, criterion: Criterion | str = ..., /
    ) -> AttackResult:
        """Attack images (N, ...) with labels (N,)."""


class EnsembleAttack(Attack):
    """Runs several attacks and keeps each image's smallest perturbation.

    Every attack's distance is an upper bound of the true one, so the smallest of several is a better one, never a
    worse. Each claim is checked by running the model before it is compared: a false one cannot displace a true one.
    ``gradient_evaluations`` is the sum over the attacks.

    Args:
        attacks: at least one attack object, ``attack(model, inputs, labels, criterion)``.
        norm: what the answers are compared in; ``None`` takes the attacks' own (``"rmse"`` where none has one).
        bounds: the box that adversarial images must stay in; ``None`` takes the attacks' own (none where none has
            any).

    Raises:
        InvalidInputError: for no attacks, or attacks whose norms or bounds differ.
        InvalidTypeError: for something other than attack objects.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> attack = EnsembleAttack([MinimumNormAttack(norm="l2"), PaperAttack(norm="l2", rho=2.0)])
        >>> result = attack(model, torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
        >>> round(float(result.distances), 4)
        0.7071

    References:
        Croce and Hein 2020, arXiv 2003.01690 (AutoAttack), for ensembles of attacks.
    """

    def __init__(
        self,
        attacks: Sequence[Member],
        *,
        norm: Norm | str | None = None,
        bounds: Bounds | tuple[float, float] | None = None,
    ) -> None:
        self.attacks = _checked(attacks)
        norms = [member.norm for member in self.attacks if hasattr(member, "norm")]
        boxes = [member.bounds for member in self.attacks if hasattr(member, "bounds")]
        super().__init__(
            norm=(norms[0] if norms else "rmse") if norm is None else norm,
            bounds=(boxes[0] if boxes else None) if bounds is None else bounds,
        )
        for own in norms:
            if not _same_norm(as_norm(own), self.norm):
                raise InvalidInputError(
                    f"norm: expected one for all attacks, {self.norm!r}, got one with {own!r}; distances in different "
                    "norms cannot be compared"
                )
        for box in boxes:
            if Bounds.of(box) != self.bounds:
                raise InvalidInputError(f"bounds: expected the same for all attacks, {self.bounds}, got one with {box}")

    def search(self, problem: Problem) -> Found:
        best = torch.zeros_like(problem.inputs)
        best_size = torch.full((len(problem),), torch.inf, dtype=problem.inputs.dtype, device=problem.inputs.device)
        spent = torch.zeros(len(problem), dtype=torch.int64, device=problem.inputs.device)
        rows = torch.arange(len(problem), device=problem.inputs.device)
        for attack in self.attacks:
            result = attack(problem.model, problem.inputs, problem.labels, problem.criterion)
            claims = result.adversarial_inputs.detach() - problem.inputs
            claims, met = verified(problem, claims, result.found, rows)
            size = self.norm.size(problem.images(claims) - problem.inputs)
            better = met & (size < best_size)
            best[better], best_size[better] = claims[better], size[better]
            spent += result.gradient_evaluations
        return Found(best, best_size < torch.inf, spent)

    def starting_from(self, images: Tensor) -> EnsembleAttack:
        members = [m.starting_from(images) if isinstance(m, Attack) else m for m in self.attacks]
        return EnsembleAttack(members, norm=self.norm, bounds=self.bounds)


def _checked(attacks: object) -> list[Member]:
    """The attacks as a list, or an exception that says what came instead."""
    if not isinstance(attacks, (list, tuple)):
        raise InvalidTypeError(f"attacks: expected a list of attack objects, got {attacks!r}")
    if not attacks:
        raise InvalidInputError("attacks: expected at least one attack object, got none")
    for attack in attacks:
        if isinstance(attack, str):
            raise InvalidTypeError(
                f"attacks: expected attack objects, got a name; pass captum_lipschitz.create_attack({attack!r})"
            )
        if isinstance(attack, type) or not callable(attack):
            raise InvalidTypeError(f"attacks: expected attack objects, got {attack!r}")
    return list(attacks)


def _same_norm(one: Norm, other: Norm) -> bool:
    if type(one) is not type(other) or (one.scale is None) != (other.scale is None):
        return False
    if one.scale is None or other.scale is None:
        return True
    scales = torch.as_tensor(one.scale), torch.as_tensor(other.scale)
    return scales[0].shape == scales[1].shape and bool((scales[0] == scales[1].to(scales[0])).all())
