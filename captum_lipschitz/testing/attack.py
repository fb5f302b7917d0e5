"""The contracts of an attack."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz._typing import Model
from captum_lipschitz.attacks import AttackResult
from captum_lipschitz.criteria import Criterion, Misclassified
from captum_lipschitz.errors import CaptumLipschitzWarning
from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz.plugin import AttackLike
from captum_lipschitz.testing._contract import BadCall, answering, check_refusals, quiet, require
from captum_lipschitz.testing._networks import CLASSES, SHAPE, Case, build_case, worth_keeping
from captum_lipschitz.testing._runs import check_repeats, check_rows, same_seed
from captum_lipschitz.testing._traces import check_traces, untouched

_VERIFIED = "a found answer is verified by running the model"


def check_attack(
    attack: AttackLike, *, shape: Sequence[int] = SHAPE, device: torch.device | str = "cpu", rtol: float = 1e-4
) -> None:
    """Check that an attack keeps the contracts, on small seeded networks of four classes and five images.

    It returns an ``AttackResult`` whose dtype and device are the inputs'; whatever it calls found meets the criterion
    when the model is run on it, with a finite distance that is the perturbation's size; whatever it does not find has
    the distance ``inf``; an image that is misclassified to begin with has the distance 0. It runs a module in
    evaluation mode, and leaves no trace: modes, ``requires_grad``, gradients, hooks, buffers, random states and default
    dtype are as they were after success, the model's error and Ctrl-C. An image's answer does not depend on its
    neighbours. The same seed gives the same bits. Bad input gets an exception of ``captum_lipschitz.errors`` that names
    the argument. Nothing is printed.

    Args:
        attack: what a component's factory made.
        shape: of one image, for attacks that need more than the default's 6 by 6 pixels; values are within [0, 1].
        device: where to run.
        rtol: how far distances may move, relative to themselves, when a batch is cut otherwise: its rounding.

    Raises:
        ContractError: (an ``AssertionError``) for a contract that is not kept: which, what was expected, what came.

    Warns:
        CaptumLipschitzWarning: it found nothing that was not misclassified before, so what it finds is unchecked.

    Example:
        >>> from captum_lipschitz.attacks import MinimumNormAttack
        >>> from captum_lipschitz.testing import check_attack
        >>> check_attack(MinimumNormAttack(steps=10))
    """
    require(callable(attack), "is an AttackLike", "a callable", type(attack).__name__)
    precise, case = (build_case(shape, device, dtype=dtype) for dtype in (torch.float64, torch.float32))
    with answering("the attack"):
        result = _answer(attack, precise)
        result = _answer(attack, case)
        _check_not_found(attack, build_case(shape, device))
        check_repeats(result.adversarial_inputs, _run(attack, case, seed=1).adversarial_inputs)
        _check_evaluation_mode(attack, build_case(shape, device), result, rtol)
        _check_criterion(attack, case, result)
        check_rows(lambda part: _run(attack, part).distances, precise, rtol)
        check_traces(lambda case: attack(case.model, case.inputs, case.labels), lambda: build_case(shape, device))
        check_refusals(_bad_calls(attack, case))
    if not bool(result.found[:-1].any()):
        warnings.warn(
            "check_attack: the attack found nothing, so what it says of its finds is unchecked; give it settings with "
            "which it finds something",
            CaptumLipschitzWarning,
            stacklevel=2,
        )


def _run(attack: AttackLike, case: Case, criterion: Criterion | str = "misclassified", seed: int = 0) -> AttackResult:
    with same_seed(attack, seed), untouched(case):
        return attack(case.model, case.inputs, case.labels, criterion)


def _answer(attack: AttackLike, case: Case) -> AttackResult:
    result = _run(attack, case)
    _check_form(result, case)
    _check_answers(attack, result, case.model, case.inputs, case.labels)
    return result


def _check_form(result: AttackResult, case: Case) -> None:
    inputs = case.inputs
    require(isinstance(result, AttackResult), "returns an AttackResult", "an AttackResult", type(result).__name__)
    expected = {
        "adversarial_inputs": (inputs.shape, inputs.dtype),
        "distances": (inputs.shape[:1], inputs.dtype),
        "found": (inputs.shape[:1], torch.bool),
        "gradient_evaluations": (inputs.shape[:1], torch.int64),
    }
    for name, (shape, dtype) in expected.items():
        value: Any = getattr(result, name)
        require(isinstance(value, Tensor), "returns an AttackResult", f"{name} to be a tensor", type(value).__name__)
        require(
            value.shape == shape, "returns one row per image", f"{name} of shape {tuple(shape)}", tuple(value.shape)
        )
        require(
            value.dtype == dtype and value.device == inputs.device,
            "dtype and device follow the inputs",
            f"{name} of {dtype} on {inputs.device}",
            f"{value.dtype} on {value.device}",
        )
        require(
            not value.requires_grad, "returns detached tensors", f"{name} without a graph", "one that requires grad"
        )


def _check_answers(attack: AttackLike, result: AttackResult, model: Model, inputs: Tensor, labels: Tensor) -> None:
    """Everything that an answer claims, by running the model."""
    goal, found, distances = Misclassified(), result.found, result.distances
    with torch.no_grad():
        clean = goal.value(model(inputs), labels) <= 0
        met = goal.value(model(result.adversarial_inputs), labels) <= 0
    false = int((found & ~met).sum())
    require(not false, _VERIFIED, "every image that is called found to be misclassified", f"{false} that are not")
    wrong = int((torch.isfinite(distances) != found).sum())
    told = f"{wrong} rows otherwise: found {found.tolist()}, distances {_told(distances)}"
    require(not wrong, "not found is inf", "a finite distance exactly where found", told)
    require(
        bool((found & (distances == 0))[clean].all()),
        "a clean image that meets the criterion is its own answer",
        "found, at the distance 0",
        f"found {found[clean].tolist()}, distances {_told(distances[clean])}",
    )
    require(
        bool((distances[found & ~clean] > 0).all()),
        _VERIFIED,
        "distances above 0 where the image was changed",
        _told(distances),
    )
    left = ~found | clean
    require(
        torch.equal(result.adversarial_inputs[left], inputs[left]),
        "where nothing had to be, or was, found the clean image is returned",
        "the clean image",
        "another one",
    )
    _check_size(attack, result, inputs)


def _check_size(attack: AttackLike, result: AttackResult, inputs: Tensor) -> None:
    """Distances and the box, for attacks that say what they measure in and stay in."""
    norm, bounds, found = getattr(attack, "norm", None), getattr(attack, "bounds", None), result.found
    if isinstance(norm, Norm):
        size = norm.size(result.adversarial_inputs - inputs)[found]
        require(
            torch.allclose(size, result.distances[found], rtol=1e-4, atol=1e-7),
            "a distance is the size of the perturbation",
            f"{_told(size)}, as {norm} measures",
            _told(result.distances[found]),
        )
    if isinstance(bounds, Bounds):
        images = result.adversarial_inputs
        require(
            torch.equal(images, bounds.clamp(images)), "answers stay in the bounds", f"images in {bounds}", "others"
        )


def _check_not_found(attack: AttackLike, case: Case) -> None:
    """A model that no change of the image moves from its class: a function, which is as good a model as a module."""
    lead = 100 * torch.eye(CLASSES, device=case.inputs.device, dtype=case.inputs.dtype)[0]

    def certain(inputs: Tensor) -> Tensor:
        return torch.tanh(case.model(inputs)) + lead

    labels = torch.zeros_like(case.labels)
    with quiet(), same_seed(attack):
        result = attack(certain, case.inputs, labels)
    _check_form(result, case)
    _check_answers(attack, result, certain, case.inputs, labels)


def _check_evaluation_mode(attack: AttackLike, case: Case, expected_result: AttackResult, rtol: float) -> None:
    expected = expected_result.distances
    found = _run(attack, worth_keeping(case)).distances
    require(
        torch.allclose(expected, found, rtol=max(rtol, 1e-3)),
        "a module is run in evaluation mode",
        f"the distances {_told(expected)} also for a model in train mode",
        _told(found),
    )


def _check_criterion(attack: AttackLike, case: Case, named: AttackResult) -> None:
    given = _run(attack, case, Misclassified())
    require(
        torch.equal(named.distances, given.distances),
        "takes a criterion as an object or by name",
        f"the same answer for both, {_told(named.distances)}",
        _told(given.distances),
    )


def _bad_calls(attack: AttackLike, case: Case) -> list[BadCall]:
    model, inputs, labels = case
    start = model.runs

    def bad(what: str, name: str, *arguments: Any) -> BadCall:
        def call() -> object:
            nonlocal start
            start = model.runs
            return attack(*arguments)

        return BadCall(what, [name], call, lambda: model.runs - start)

    holed = inputs.clone()
    holed[0] = math.nan
    refused = [
        bad("inputs that are no tensor", "inputs", model, inputs.tolist(), labels),
        bad("integer inputs", "inputs", model, (255 * inputs).to(torch.uint8), labels),
        bad("an empty batch", "inputs", model, inputs[:0], labels[:0]),
        bad("inputs with NaN", "inputs", model, holed, labels),
        bad("too few labels", "labels", model, inputs, labels[:-1]),
        bad("floating labels", "labels", model, inputs, labels.double()),
        bad("a label that the model does not have", "labels", model, inputs, labels + CLASSES),
        bad("a criterion that does not exist", "criterion", model, inputs, labels, "no such criterion"),
    ]
    wrong: dict[str, Any] = {
        "a model that returns a tuple": lambda x: (model(x),),
        "a model whose output is detached": lambda x: model(x).detach(),
    }
    return refused + [
        BadCall(what, ["model"], functools.partial(attack, function, inputs, labels))
        for what, function in wrong.items()
    ]


def _told(distances: Tensor) -> str:
    return "[" + ", ".join(f"{distance:.4g}" for distance in distances.tolist()) + "]"
