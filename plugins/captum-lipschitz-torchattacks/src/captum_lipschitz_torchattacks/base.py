"""What the wrapped attacks share: torchattacks at first use, its box, and the criteria that it can pursue."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from torch import Tensor

from captum_lipschitz.attacks import Attack, AttackResult
from captum_lipschitz.criteria import Criterion, as_criterion
from captum_lipschitz.errors import InvalidInputError, MissingDependencyError
from captum_lipschitz.geometry import Bounds, Norm

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

UNIT_BOX = Bounds(0.0, 1.0)


def torchattacks() -> ModuleType:
    """The module torchattacks, imported at first use."""
    try:
        return import_module("torchattacks")
    except ImportError as error:
        raise MissingDependencyError(
            f"torchattacks: cannot be imported ({error}); install it with: pip install captum-lipschitz-torchattacks"
        ) from error


class TorchattacksAttack(Attack):
    """Base of the wrapped attacks: in the box [0, 1], as torchattacks clamps to it, for the criteria it can pursue.

    Attributes:
        name: of the component.
        criteria: that it can pursue.
    """

    name: str
    criteria: tuple[type[Criterion], ...]

    def __init__(self, *, norm: Norm | str, bounds: Bounds | tuple[float, float]) -> None:
        super().__init__(norm=norm, bounds=bounds)
        if self.bounds != UNIT_BOX:
            raise InvalidInputError(f"bounds: expected (0, 1), the box that torchattacks clamps to, got {bounds!r}")
        if self.norm.scale is not None:
            raise InvalidInputError("norm: expected one without a scale, which torchattacks does not know")

    def __call__(
        self,
        model: Callable[[Tensor], Tensor],
        inputs: Tensor,
        labels: Tensor,
        criterion: Criterion | str = "misclassified",
    ) -> AttackResult:
        """See ``captum_lipschitz.attacks.Attack``; a criterion that torchattacks cannot pursue is refused."""
        goal = as_criterion(criterion)
        if not isinstance(goal, self.criteria):
            names = " or ".join(accepted.__name__ for accepted in self.criteria)
            raise InvalidInputError(
                f"criterion: {self.name} expects {names}, got {goal!r}; the attacks "
                "'minimum_norm' and 'paper' accept any criterion"
            )
        return super().__call__(model, inputs, labels, goal)
