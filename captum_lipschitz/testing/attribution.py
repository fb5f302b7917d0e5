"""The contracts of an attribution method."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.plugin import AttributionLike
from captum_lipschitz.testing._contract import BadCall, answering, check_refusals, require
from captum_lipschitz.testing._networks import CLASSES, SHAPE, Case, build_case
from captum_lipschitz.testing._runs import check_repeats, check_rows, same_seed
from captum_lipschitz.testing._traces import check_traces, untouched


def check_attribution(
    factory: Callable[[Callable[..., Any]], AttributionLike],
    *,
    shape: Sequence[int] = SHAPE,
    device: torch.device | str = "cpu",
    rtol: float = 1e-4,
) -> None:
    """Check that an attribution method keeps the contracts, on small seeded networks of four classes and five images.

    ``factory(model).attribute(inputs, target=labels)`` returns finite attributions of the inputs' shape, dtype and
    device. It leaves no trace, also after the model's error and Ctrl-C: modes, ``requires_grad``, gradients, hooks,
    buffers, random states and default dtype are as they were. An image's attribution does not depend on its neighbours
    where the model is in evaluation mode. The same seed gives the same bits. Bad input gets an exception of
    ``captum_lipschitz.errors`` that names the argument. Nothing is printed.

    Args:
        factory: a component's, called with the model; settings by ``functools.partial``.
        shape: of one image; values are within [0, 1].
        device: where to run.
        rtol: how far attributions may move, relative to the largest of their image, when a batch is cut otherwise.

    Raises:
        ContractError: (an ``AssertionError``) for a contract that is not kept: which, what was expected, what came.

    Example:
        >>> from captum_lipschitz.attr import AdversarialAttribution
        >>> from captum_lipschitz.testing import check_attribution
        >>> check_attribution(AdversarialAttribution)
    """
    require(callable(factory), "is a factory of attributions", "a callable", type(factory).__name__)
    precise, case = (build_case(shape, device, dtype=dtype) for dtype in (torch.float64, torch.float32))
    with answering("the attribution"):
        _check_form(_run(factory, precise), precise)
        first = _run(factory, case)
        _check_form(first, case)
        check_repeats(first, _run(factory, case, seed=1))
        check_rows(lambda part: _run(factory, part), precise, rtol)
        check_traces(lambda case: _attribute(factory, case), lambda: build_case(shape, device))
        check_refusals(_bad_calls(factory, case))


def _attribute(factory: Callable[..., AttributionLike], case: Case) -> Any:
    return factory(case.model).attribute(case.inputs, target=case.labels)


def _run(factory: Callable[..., AttributionLike], case: Case, seed: int = 0) -> Any:
    with same_seed(factory, seed), untouched(case):
        made = factory(case.model)
        require(
            isinstance(made, AttributionLike),
            "the factory makes an AttributionLike",
            "an object with attribute(inputs, target=...)",
            type(made).__name__,
        )
        return made.attribute(case.inputs, target=case.labels)


def _check_form(attributions: object, case: Case) -> None:
    inputs = case.inputs
    require(isinstance(attributions, Tensor), "returns a tensor for a tensor", "one", type(attributions).__name__)
    assert isinstance(attributions, Tensor)  # noqa: S101 - for the type checker
    shape = tuple(attributions.shape)
    require(shape == inputs.shape, "attributions are shaped as the inputs", f"{tuple(inputs.shape)}", shape)
    require(
        attributions.dtype == inputs.dtype and attributions.device == inputs.device,
        "dtype and device follow the inputs",
        f"attributions of {inputs.dtype} on {inputs.device}",
        f"{attributions.dtype} on {attributions.device}",
    )
    require(bool(torch.isfinite(attributions).all()), "attributions are finite", "finite values", "NaN or infinity")
    require(not attributions.requires_grad, "returns detached tensors", "no graph", "a tensor that requires grad")


def _bad_calls(factory: Callable[..., AttributionLike], case: Case) -> list[BadCall]:
    model, inputs, labels = case
    start = model.runs

    def bad(what: str, names: Sequence[str], model_: Callable[..., Any], inputs_: Any, target: Any) -> BadCall:
        def call() -> object:
            nonlocal start
            start = model.runs
            return factory(model_).attribute(inputs_, target=target)

        return BadCall(what, names, call, lambda: model.runs - start)

    holed = inputs.clone()
    holed[0] = math.nan

    def bad_model(what: str, function: Callable[[Tensor], Any]) -> BadCall:
        return BadCall(what, ["forward_func", "model"], lambda: factory(function).attribute(inputs, target=labels))

    return [
        bad("integer inputs", ["inputs"], model, (255 * inputs).to(torch.uint8), labels),
        bad("an empty batch", ["inputs"], model, inputs[:0], labels[:0]),
        bad("inputs with NaN", ["inputs"], model, holed, labels),
        bad("too few targets", ["target"], model, inputs, labels[:-1]),
        bad("a target that the model does not have", ["target"], model, inputs, labels + CLASSES),
        bad_model("a model that returns a tuple", lambda x: (model(x),)),
        bad_model("a model whose output is detached", lambda x: model(x).detach()),
    ]
