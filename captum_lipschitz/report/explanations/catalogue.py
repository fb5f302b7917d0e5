"""The ten methods with their costs, and which of them a model or an input rules out."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from captum_lipschitz._model import gradient
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import DisconnectedModelError
from captum_lipschitz.report.explanations import explainers, removing
from captum_lipschitz.report.explanations.explaining import Setting
from captum_lipschitz.report.explanations.layers import grad_cam_layer, no_guided_backprop, runs_of
from captum_lipschitz.report.explanations.methods import TITLES, Effort, Make, Method

MOST_FEATURES = 1024  # of a row: each is taken away by itself
NOISE = 0.15  # of SmoothGrad, a share of the input's range: its authors recommend 0.1 to 0.2
GRADIENT = 3  # passes: a backward one costs about two forward ones
NO_GRADIENT = ("occlusion", "lime", "random")  # that need none


def catalogue(
    model: Model, example: Tensor, setting: Setting, effort: Effort, rho: float
) -> tuple[dict[str, Method], dict[str, str]]:
    """See ``methods.all_methods``, which checks the arguments."""
    origin = partial(explainers.origin, setting=setting)
    methods = [
        _adversarial(setting, effort, rho),
        *_gradients(setting, effort),
        *_removing(example, setting, effort),
        _method("random", partial(explainers.random_map, setting=setting), "no evaluation", 0, origin, direction=True),
    ]
    reasons = {
        "guided_backprop": no_guided_backprop(model),
        "occlusion": _too_wide(example),
        "lime": _too_wide(example),
    }
    layer, shape, no_layer = grad_cam_layer(runs_of(model, example), example)
    if layer is None:
        reasons["grad_cam"] = no_layer
    else:
        make = partial(explainers.grad_cam, setting=setting, layer=layer)
        cost = f"1 gradient; maps of {_by(shape)} of the layer {layer}"
        methods.append(_method("grad_cam", make, cost, GRADIENT, origin, signed=False))
    no_gradient = _no_gradient(model, example)
    if no_gradient is not None:
        reasons |= {name: no_gradient for name in TITLES if name not in NO_GRADIENT}
    found = {method.name: method for method in methods}
    left_out = {name: why for name in TITLES if (why := reasons.get(name)) is not None}
    return {name: found[name] for name in TITLES if name not in left_out}, left_out


def _method(
    name: str,
    make: Make,
    cost: str,
    passes: int,
    reference: Callable[[Tensor], Tensor],
    *,
    direction: bool = False,
    signed: bool = True,
) -> Method:
    return Method(
        name=name,
        title=TITLES[name],
        make=make,
        cost=cost,
        passes=passes,
        direction=direction,
        signed=signed,
        reference=reference,
    )


def _adversarial(setting: Setting, effort: Effort, rho: float) -> Method:
    def sized(size: float) -> Make:
        return partial(explainers.adversarial, setting=setting, rho=size, steps=effort.steps)

    return Method(
        name="adversarial",
        title=TITLES["adversarial"],
        make=sized(rho),
        cost=f"{effort.steps} gradients of the log-odds",
        passes=GRADIENT * effort.steps,
        direction=True,
        reference=partial(explainers.origin, setting=setting),
        objective="logit" if setting.multi_label else "log_odds",  # a label's logit is its log-odds
        rho=rho,
        sized=sized,
    )


def _gradients(setting: Setting, effort: Effort) -> list[Method]:
    start = "zero" if setting.baseline is None else "the baseline given"
    origin = partial(explainers.origin, setting=setting)
    way, noisy = effort.way, effort.noisy
    smooth = partial(explainers.smooth_grad, setting=setting, samples=noisy, noise=NOISE)
    integrated = partial(explainers.integrated_gradients, setting=setting, steps=way)
    saliency, product, guided = (
        partial(make, setting=setting)
        for make in (explainers.saliency, explainers.input_x_gradient, explainers.guided_backprop)
    )
    return [
        _method("saliency", saliency, "1 gradient", GRADIENT, origin, direction=True),
        _method("input_x_gradient", product, "1 gradient; relative to zero", GRADIENT, torch.zeros_like),
        _method("integrated_gradients", integrated, f"{way} gradients on the way from {start}", GRADIENT * way, origin),
        _method(
            "smooth_grad",
            smooth,
            f"{noisy} gradients, each with noise of {NOISE:.0%} of the input's range",
            GRADIENT * noisy,
            origin,
            direction=True,
        ),
        _method("guided_backprop", guided, "1 gradient", GRADIENT, origin, direction=True),
    ]


def _removing(example: Tensor, setting: Setting, effort: Effort) -> list[Method]:
    spatial = tuple(example.shape[2:])
    steps, parts = effort.windows.get(len(spatial), 1), effort.patches.get(len(spatial), 1)
    occluded = partial(removing.occlusion, setting=setting, parts=steps)
    number = int(removing.patches(example.shape[1:], parts).max()) + 1
    samples = max(effort.samples, 2 * number) if not spatial else effort.samples
    lime = partial(removing.lime, setting=setting, parts=parts, samples=samples)
    if spatial:
        window, stride, count = removing.windows(spatial, steps)
        how = f"windows of {_by(window)}, stride {_by(stride)}: {count} evaluations"
        kind = f"{number} patches of about {_by(tuple(-(-size // min(parts, size)) for size in spatial))}"
    else:
        count = number
        how, kind = f"each of {number} features by itself: {number} evaluations", f"{number} features"
    reference = partial(removing.filling, baseline=setting.baseline)
    filled = "the baseline given" if setting.baseline is not None else "each channel's mean" if spatial else "zero"
    return [
        _method("occlusion", occluded, f"{how}; filled with {filled}", count + 1, reference),
        _method("lime", lime, f"{kind}, {samples} evaluations; filled with {filled}", samples + 1, reference),
    ]


def _too_wide(example: Tensor) -> str | None:
    if example.dim() > 2 or example.shape[1] <= MOST_FEATURES:
        return None
    return f"it takes each feature away by itself, and {example.shape[1]} of them are more than {MOST_FEATURES}"


def _no_gradient(model: Model, example: Tensor) -> str | None:
    inputs = example.detach().clone()
    with settled(), no_trace(model, inputs):
        inputs.requires_grad_()
        try:
            gradient(model(inputs)[:, 0], inputs)
        except DisconnectedModelError:
            return "the model's output does not depend on its input through differentiable operations"
        except Exception as error:  # noqa: BLE001 (a model that is none of torch's raises anything)
            return f"no gradient: {(str(error).strip() or type(error).__name__).splitlines()[0]}"
    return None


def _by(sizes: tuple[int, ...]) -> str:
    return " x ".join(map(str, sizes))
