"""PDGD and PDPGD of adv-lib: distance and margin weighed against each other, the weights learned on the way."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import L2, Bounds, Linf, Norm
from captum_lipschitz_advlib.base import UNIT_BOX, AdvLibAttack, at_least, positive, share
from captum_lipschitz_advlib.library import advlib
from captum_lipschitz_advlib.shown_model import ShownModel


class AdvLibPDGD(AdvLibAttack):
    """Primal-Dual Gradient Descent as adv-lib 0.2.8 has it, for any criterion and images in [0, 1].

    Adam minimises ``w_0 * |delta| + w_1 * softplus(margin)`` over the perturbation; the weights rise and fall with
    the margin's sign. (The criterion's value stands for the margin where it is neither ``misclassified`` nor
    ``Reaches``.) It starts from the image.

    It costs ``steps`` gradients an image.

    Args:
        steps: at least 2.
        step_size: Adam's first learning rate, in the images' units per pixel, positive.
        step_size_decrease: the last learning rate relative to the first, in (0, 1].
        dual_ratio: ``w_0 / w_1`` at first, positive.
        dual_step_size: the first change of the weights' logarithm, positive.
        dual_step_size_decrease: the last one relative to the first, in (0, 1].
        dual_average: share of the weights' running mean that each step keeps, in [0, 1).
        norm: ``"rmse"`` or ``"l2"``, which order perturbations alike.
        bounds: ``(0, 1)``, as adv-lib knows no other box.

    Raises:
        InvalidInputError: for a setting out of its range.
        MissingDependencyError: when called, where adv-lib is absent.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = AdvLibPDGD(norm="l2")(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 2)
        (True, 0.14)

    References:
        Matyasko and Chau 2021, arXiv 2106.01538.
    """

    def __init__(
        self,
        *,
        steps: int = 500,
        step_size: float = 0.1,
        step_size_decrease: float = 0.01,
        dual_ratio: float = 0.01,
        dual_step_size: float = 0.1,
        dual_step_size_decrease: float = 0.1,
        dual_average: float = 0.9,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = UNIT_BOX,
    ) -> None:
        super().__init__(norm=norm, bounds=bounds)
        self.steps = at_least("steps", steps, 2)
        if not 0 <= dual_average < 1:
            raise InvalidInputError(f"dual_average: expected a share in [0, 1), got {dual_average}")
        self.settings: dict[str, Any] = {
            "num_steps": steps,
            "primal_lr": positive("step_size", step_size),
            "primal_lr_decrease": _decrease("step_size_decrease", step_size_decrease),
            "dual_ratio_init": positive("dual_ratio", dual_ratio),
            "dual_lr": positive("dual_step_size", dual_step_size),
            "dual_lr_decrease": _decrease("dual_step_size_decrease", dual_step_size_decrease),
            "dual_ema": dual_average,
        }

    def run(self, model: ShownModel) -> Tensor:
        found: Tensor = advlib().pdgd(model, model.images, model.labels, targeted=model.targeted, **self.settings)
        return found


class AdvLibPDPGD(AdvLibPDGD):
    """Primal-Dual Proximal Gradient Descent as adv-lib 0.2.8 has it, for any criterion and images in [0, 1].

    As ``AdvLibPDGD``, with the distance minimised by its proximal operator, so that it need not have a gradient.

    Args:
        steps: at least 2.
        proximal_steps: of the inner loop, at least 1; they cost no gradients of the model.
        norm: ``"rmse"``, ``"l2"`` (the same search) or ``"linf"``.
        bounds: ``(0, 1)``, as adv-lib knows no other box.
        settings: the others of ``AdvLibPDGD``.

    Raises:
        InvalidInputError: for a setting out of its range.
        MissingDependencyError: when called, where adv-lib is absent.

    Example:
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> result = AdvLibPDPGD(norm="linf")(model, torch.tensor([[0.6, 0.4]]), torch.tensor([0]))
        >>> bool(result.found), round(float(result.distances), 1)
        (True, 0.1)

    References:
        Matyasko and Chau 2021, arXiv 2106.01538.
    """

    norms = (L2, Linf)

    def __init__(
        self,
        *,
        steps: int = 500,
        proximal_steps: int = 5,
        norm: Norm | str = "rmse",
        bounds: Bounds | tuple[float, float] | None = UNIT_BOX,
        **settings: float,
    ) -> None:
        super().__init__(steps=steps, norm=norm, bounds=bounds, **settings)
        self.settings["proximal_steps"] = at_least("proximal_steps", proximal_steps, 1)

    def run(self, model: ShownModel) -> Tensor:
        found: Tensor = advlib().pdpgd(
            model, model.images, model.labels, self.order, targeted=model.targeted, **self.settings
        )
        return found


def _decrease(name: str, value: float) -> float:
    """A number in (0, 1], or an exception that names it."""
    return value if value == 1 else share(name, value)
