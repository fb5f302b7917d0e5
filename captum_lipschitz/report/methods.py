"""The ten explanation methods of an audit: Captum's own, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz.metrics.maps import Explain

Make: TypeAlias = Callable[[Model], Explain]
"""A method, given the model: parameter randomisation explains changed models too."""

EffortName = Literal["fast", "standard", "thorough"]

TITLES: Mapping[str, str] = {
    "adversarial": "Adversarial explanation",
    "saliency": "Saliency",
    "input_x_gradient": "Input x gradient",
    "integrated_gradients": "Integrated Gradients",
    "smooth_grad": "SmoothGrad",
    "guided_backprop": "Guided Backprop",
    "grad_cam": "Grad-CAM",
    "occlusion": "Occlusion",
    "lime": "LIME",
    "random": "Random map",
}
"""Every method's title by its name, in the order of tables."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One explanation method, ready to be made for a model.

    Attributes:
        name: one of ``TITLES``.
        title: for people.
        make: the method for a model, which must be built like the one it was set up with (its weights may differ).
        cost: what an explanation of one image takes, with the sample counts, a sentence.
        passes: the same as forward passes through the model, a gradient counted as two more.
        direction: whether the attributions are a direction: a small step along them should make the model see more of
            the target. Not those that say how important a position is.
        signed: whether negative values mean evidence against the target; Grad-CAM has none.
        rho: size of the change that the attributions are, RMSE; ``None`` for maps.
        sized: the same method with changes of another size; ``None`` for maps.
    """

    name: str
    title: str
    make: Make
    cost: str
    passes: int
    direction: bool = False
    signed: bool = True
    rho: float | None = None
    sized: Callable[[float], Make] | None = None

    def at(self, rho: float) -> Method:
        """The same method with changes of size ``rho``.

        Raises:
            InvalidInputError: its attributions have no size that can be chosen.
        """
        if self.sized is None:
            raise InvalidInputError(f"rho: expected a method whose attributions are a change of a size, got {self.name}")
        return replace(self, make=self.sized(rho), rho=rho)


def all_methods(
    model: Model,
    example: Tensor,
    *,
    rho: float = 0.1,
    bounds: Bounds | tuple[float, float] | None = None,
    norm: Norm | str = "rmse",
    effort: EffortName = "standard",
    multi_label: bool = False,
    baseline: Tensor | None = None,
    generator: torch.Generator | None = None,
    rows: int | None = None,
) -> tuple[dict[str, Method], dict[str, str]]:
    """Those of the ten methods that can explain this model, and why the others cannot.

    Args:
        model: maps inputs (N, ...) to logits (N, C), C at least 2 (see ``heads.as_classes``).
        example: one of the inputs, (1, ...): a row (1, F), a sequence (1, C, L), an image or a volume.
        rho: size of the adversarial explanation, RMSE.
        bounds: that the adversarial explanation stays in.
        norm: that ``rho`` is measured in.
        effort: sample counts: ``"fast"``, ``"standard"`` or ``"thorough"``.
        multi_label: each output is a label of its own rather than one of the classes.
        baseline: broadcasts to ``example``: what stands for "not there".
        generator: one draw from it seeds the methods that draw; ``None`` is a fixed seed.
        rows: inputs run at once; ``None`` for as many as suit their size.

    Returns:
        ``(methods, left_out)``, both by name: those that can, in the order of ``TITLES``, and the reason for each that
        cannot.
    """
    from captum_lipschitz.report.explainers import build  # brings Captum, and with it matplotlib

    return build(model, example)
