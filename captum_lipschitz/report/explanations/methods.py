"""The ten explanation methods of an audit: Captum's own, and ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, TypeAlias

import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs, check_logits
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz.metrics.maps import Explain

Make: TypeAlias = Callable[[Model], Explain]
"""A method, given the model: parameter randomisation explains changed models too."""

EffortName = Literal["fast", "standard", "thorough"]


class Effort(NamedTuple):
    """Sample counts.

    Attributes:
        steps: of the adversarial explanation.
        way: gradients of Integrated Gradients.
        noisy: copies of SmoothGrad.
        windows: of Occlusion, steps to an axis by number of axes.
        patches: of LIME, to an axis by number of axes.
        samples: of LIME.
    """

    steps: int
    way: int
    noisy: int
    windows: Mapping[int, int]
    patches: Mapping[int, int]
    samples: int


EFFORTS: Mapping[str, Effort] = {
    "fast": Effort(15, 8, 8, {1: 16, 2: 5, 3: 4}, {1: 16, 2: 5, 3: 3}, 60),
    "standard": Effort(35, 16, 16, {1: 32, 2: 8, 3: 5}, {1: 32, 2: 6, 3: 4}, 100),
    "thorough": Effort(100, 50, 50, {1: 64, 2: 16, 3: 8}, {1: 64, 2: 8, 3: 5}, 500),
}

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
        reference: what stands for "not there", for images (N, ...) and of their shape. Contributions are relative to
            it; a direction is relative to nothing and is given what Integrated Gradients starts from.
        objective: the output that is explained: Captum's methods explain the target's logit, ours its log-odds.
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
    reference: Callable[[Tensor], Tensor] = torch.zeros_like
    objective: Literal["logit", "log_odds"] = "logit"
    rho: float | None = None
    sized: Callable[[float], Make] | None = None

    def at(self, rho: float) -> Method:
        """The same method with changes of size ``rho``.

        Raises:
            InvalidInputError: its attributions have no size that can be chosen.
        """
        if self.sized is None:
            raise InvalidInputError(
                f"rho: expected a method whose attributions are a change of a size, got {self.name}"
            )
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
        rows: inputs run at once; ``None`` for as many as suit their size. SmoothGrad, which draws its noise in such
            parts, gives other draws for another number.

    Returns:
        ``(methods, left_out)``, both by name: those that can, in the order of ``TITLES``, and the reason for each that
        cannot.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments that cannot be used.
        ModelOutputError: for a model without finite logits.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3))
        >>> methods, left_out = all_methods(model, torch.rand(1, 3, 4, 4))
        >>> methods["occlusion"].make(model)(torch.rand(2, 3, 4, 4), torch.tensor([0, 2])).shape
        torch.Size([2, 3, 4, 4])
        >>> left_out["grad_cam"]
        'no convolution with several positions runs in it as a module'

    References:
        Simonyan, Vedaldi and Zisserman 2013, arXiv 1312.6034 (saliency); Shrikumar et al. 2016, arXiv 1605.01713
        (input x gradient); Sundararajan, Taly and Yan 2017, arXiv 1703.01365; Smilkov et al. 2017, arXiv 1706.03825
        (SmoothGrad); Springenberg et al. 2014, arXiv 1412.6806 (guided backpropagation); Selvaraju et al. 2017, arXiv
        1610.02391 (Grad-CAM); Zeiler and Fergus 2013, arXiv 1311.2901 (occlusion); Ribeiro, Singh and Guestrin 2016,
        arXiv 1602.04938 (LIME); Woods, Chen and Teuscher 2019, arXiv 1906.02896 (adversarial explanations).
    """
    if effort not in EFFORTS:
        raise InvalidInputError(f"effort: expected one of {sorted(EFFORTS)}, got {effort!r}")
    if not rho > 0:
        raise InvalidInputError(f"rho: expected a positive size, got {rho}")
    check_inputs(example, "example")
    if len(example) != 1 or example.dim() > 5:
        raise InvalidInputError(f"example: expected one input, (1, F) to (1, C, D, H, W), got {tuple(example.shape)}")
    if rows is not None and rows < 1:
        raise InvalidInputError(f"rows: expected at least 1, got {rows}")
    outputs = _outputs(model, example, at_least=1 if multi_label else 2)

    from captum_lipschitz.report.explanations.catalogue import catalogue  # brings Captum, and with it matplotlib
    from captum_lipschitz.report.explanations.explaining import Setting, rows_for

    setting = Setting(
        outputs=outputs,
        rows=rows_for(example) if rows is None else rows,
        seed=0 if generator is None else _drawn(generator),
        baseline=None if baseline is None else _fitting(baseline, example),
        bounds=Bounds.of(bounds),
        norm=norm,
        multi_label=multi_label,
    )
    return catalogue(model, example, setting, EFFORTS[effort], rho)


def _outputs(model: Model, example: Tensor, *, at_least: int) -> int:
    with settled(), no_trace(model, example), torch.no_grad():
        return check_logits(model(example.detach().clone()), 1, at_least=at_least).shape[1]


def _fitting(baseline: Tensor, example: Tensor) -> Tensor:
    check_inputs(baseline, "baseline", at_least=0)
    try:
        return baseline.detach().to(example).expand_as(example)
    except RuntimeError as error:
        raise InvalidInputError(
            f"baseline: expected a shape that broadcasts to {tuple(example.shape)}, got {tuple(baseline.shape)}"
        ) from error


def _drawn(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator, device=generator.device))
