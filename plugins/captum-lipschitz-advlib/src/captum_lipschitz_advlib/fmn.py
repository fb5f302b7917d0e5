"""FMN of adv-lib: a step along the gradient, then onto the ball that just reaches the boundary."""

from __future__ import annotations

from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import L2, Bounds, Linf, Norm
from captum_lipschitz_advlib.base import UNIT_BOX, AdvLibAttack, at_least, positive, share
from captum_lipschitz_advlib.library import advlib
from captum_lipschitz_advlib.shown_model import ShownModel


class AdvLibFMN(AdvLibAttack):
    """The Fast Minimum-Norm attack as adv-lib 0.2.8 has it, for any criterion and images in [0, 1].

    Each step follows the margin's gradient (that of the criterion's value, where it is neither ``misclassified`` nor
    ``Reaches``), then projects onto a ball: of the linearised distance to the boundary until the goal was met once,
    and from then on smaller or larger by a share that shrinks with the steps. It starts from the image.

    It costs ``steps`` gradients an image.

    Args:
        steps: at least 1. adv-lib's own default is 10.
        step_size: of the first step, in L2 whatever ``norm`` is, positive.
        final_step_size: of the last step; ``None`` for a hundredth of ``step_size``.
        gamma: the share by which the ball changes at first, in (0, 1).
        final_gamma: and at last.
        overshoot: the factor on the linearised distance, at least 1. With 1, as adv-lib has it, it may come to rest on
            the boundary without ever crossing it: README.md has figures.
        norm: ``"rmse"``, ``"l2"`` (the same search) or ``"linf"``.
        bounds: ``(0, 1)``, as adv-lib knows no other box.

    Raises:
        InvalidInputError: for a setting out of its range.
        MissingDependencyError: when called, where adv-lib is absent.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = AdvLibFMN(norm="linf", overshoot=1.01)(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.1)

    References:
        Pintor et al. 2021, arXiv 2102.12827.
    """

    norms = (L2, Linf)

    def __init__(
        self,
        *,
        steps: int = 100,
        step_size: float = 1.0,
        final_step_size: float | None = None,
        gamma: float = 0.05,
        final_gamma: float = 0.001,
        overshoot: float = 1.0,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = UNIT_BOX,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        self.steps = at_least("steps", steps, 1)
        self.step_size = positive("step_size", step_size)
        self.final_step_size = None if final_step_size is None else positive("final_step_size", final_step_size)
        self.gamma = share("gamma", gamma)
        self.final_gamma = share("final_gamma", final_gamma)
        if not overshoot >= 1:
            raise InvalidInputError(f"overshoot: expected a factor of at least 1, got {overshoot}")
        self.overshoot = overshoot

    def run(self, model: ShownModel) -> Tensor:
        found: Tensor = advlib().fmn(
            model,
            model.images,
            model.labels,
            self.order,
            targeted=model.targeted,
            steps=self.steps,
            α_init=self.step_size,
            α_final=self.final_step_size,
            γ_init=self.gamma,
            γ_final=self.final_gamma,
        )
        return found
