"""DDN of adv-lib: a step along the gradient, then the length shrinks or grows."""

from __future__ import annotations

from torch import Tensor

from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz_advlib.base import UNIT_BOX, AdvLibAttack, at_least, positive, share
from captum_lipschitz_advlib.library import advlib
from captum_lipschitz_advlib.shown_model import ShownModel


class AdvLibDDN(AdvLibAttack):
    """Decoupled Direction and Norm as adv-lib 0.2.8 has it, for any criterion and images in [0, 1].

    Each step follows the cross entropy's gradient at unit length, then puts the perturbation on a sphere that was made
    smaller by the share ``gamma`` where the last image met the goal, and larger by it where not. For ``misclassified``
    and ``Reaches`` the cross entropy is the model's own; for any other criterion it is ``softplus(-value)``.

    It costs ``steps`` gradients an image. Images whose cross entropy has no gradient left in float32 move at random;
    the same call still gives the same answer.

    Args:
        steps: at least 1.
        gamma: the share by which the length changes, in (0, 1).
        initial_norm: the first length, in L2 whatever ``norm`` is, positive. From 1, ``steps=100`` can grow it to 131.
        levels: round the images to so many values per channel, at least 2. ``None`` for none, which is not adv-lib's
            own default of 256: rounding hides perturbations as small as those of fragile networks.
        norm: ``"rmse"`` or ``"l2"``, which order perturbations alike.
        bounds: ``(0, 1)``, as adv-lib knows no other box.

    Raises:
        InvalidInputError: for a setting out of its range.
        MissingDependencyError: when called, where adv-lib is absent.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = AdvLibDDN(norm="l2")(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.14)

    References:
        Rony et al. 2019, arXiv 1811.09600.
    """

    def __init__(
        self,
        *,
        steps: int = 100,
        gamma: float = 0.05,
        initial_norm: float = 1.0,
        levels: int | None = None,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = UNIT_BOX,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        self.steps = at_least("steps", steps, 1)
        self.gamma = share("gamma", gamma)
        self.initial_norm = positive("initial_norm", initial_norm)
        self.levels = None if levels is None else at_least("levels", levels, 2)

    def run(self, model: ShownModel) -> Tensor:
        found: Tensor = advlib().ddn(
            model,
            model.images,
            model.labels,
            targeted=model.targeted,
            steps=self.steps,
            γ=self.gamma,
            init_norm=self.initial_norm,
            levels=self.levels,
        )
        return found
