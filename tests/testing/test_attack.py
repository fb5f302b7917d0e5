"""``check_attack``: attacks that keep the contracts pass, and each way of breaking one is told by its name."""

from __future__ import annotations

import dataclasses
import functools
import math
import random
import sys
import warnings
from collections.abc import Callable

import pytest
import torch

from captum_lipschitz import EnsembleAttack, FixedSizeAttack, MinimumNormAttack, PaperAttack
from captum_lipschitz.attacks import AttackResult
from captum_lipschitz.errors import CaptumLipschitzError, CaptumLipschitzWarning, ContractError
from captum_lipschitz.testing import check_attack

GOOD = MinimumNormAttack(steps=2)
Around = Callable[..., AttackResult]


def _steps(model, inputs, labels, sizes):
    leaf = inputs.detach().requires_grad_()
    (slope,) = torch.autograd.grad(torch.nn.functional.cross_entropy(model(leaf), labels, reduction="sum"), leaf)
    slope = slope / slope.flatten(1).square().mean(1).sqrt().clamp(min=1e-30)[:, None, None, None]
    return inputs + sizes.to(inputs)[:, None, None, None] * slope


@pytest.mark.parametrize(
    "attack",
    [
        GOOD,
        MinimumNormAttack(steps=2, norm="linf", bounds=(0, 1)),
        PaperAttack(mode="fixed", steps=5, rho=0.5),
        EnsembleAttack([MinimumNormAttack(steps=3), PaperAttack(steps=6, rho=1.0)]),
        FixedSizeAttack(_steps, tolerance=0.9),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_ours_pass(attack, capsys):
    check_attack(attack)
    assert capsys.readouterr() == ("", "")


def changed(**changes: Callable[[AttackResult, torch.Tensor], object]) -> Around:
    """The good attack with fields of its answer changed."""

    def attack(model, inputs, labels, criterion="misclassified"):
        result = GOOD(model, inputs, labels, criterion)
        return dataclasses.replace(result, **{name: change(result, inputs) for name, change in changes.items()})

    return attack


def doing(what: Callable[..., object]) -> Around:
    """The good attack, and something else before it."""

    def attack(model, inputs, labels, criterion="misclassified"):
        result = GOOD(model, inputs, labels, criterion)
        what(model, inputs, labels)
        return result

    return attack


def on_modules(what: Callable[[torch.nn.Module], object]) -> Around:
    return doing(lambda model, *_: what(model) if isinstance(model, torch.nn.Module) else None)


def swallowing(model, inputs, labels, criterion="misclassified"):
    try:
        return GOOD(model, inputs, labels, criterion)
    except RuntimeError:
        return GOOD(functools.partial(model), inputs, labels, criterion)


def without_cleaning_up(model, inputs, labels, criterion="misclassified"):
    if not isinstance(model, torch.nn.Module):
        return GOOD(model, inputs, labels, criterion)
    modes = {module: module.training for module in model.modules()}
    model.eval()
    result = GOOD(model, inputs, labels, criterion)  # an error leaves evaluation mode on
    for module, mode in modes.items():
        module.training = mode
    return result


def in_train_mode(model, inputs, labels, criterion="misclassified"):
    with torch.random.fork_rng():
        return GOOD(functools.partial(model), inputs, labels, criterion)


def drawing_globally(model, inputs, labels, criterion="misclassified"):
    result = GOOD(model, inputs, labels, criterion)
    with torch.random.fork_rng():
        larger = 1 + torch.rand(()).to(inputs)
    adversarial = inputs + (result.adversarial_inputs - inputs) * larger
    return dataclasses.replace(result, adversarial_inputs=adversarial, distances=result.distances * larger)


def drawing_anew(model, inputs, labels, criterion="misclassified", *, source=random.Random(0)):  # noqa: B008, S311
    result, larger = GOOD(model, inputs, labels, criterion), 1 + source.random()
    adversarial = inputs + (result.adversarial_inputs - inputs) * larger
    return dataclasses.replace(result, adversarial_inputs=adversarial, distances=result.distances * larger)


def with_the_neighbours(model, inputs, labels, criterion="misclassified"):
    """All are moved as far as the farthest of the batch: true answers, that depend on the company."""
    result = GOOD(model, inputs, labels, criterion)
    finite = result.distances[result.found]
    larger = 1 + (finite.mean() if len(finite) else 0)
    adversarial = inputs + (result.adversarial_inputs - inputs) * larger
    return dataclasses.replace(result, adversarial_inputs=adversarial, distances=result.distances * larger)


def in_float32(model, inputs, labels, criterion="misclassified"):
    result = GOOD(model, inputs, labels, criterion)
    return dataclasses.replace(result, distances=result.distances.float())


def by_name_only(model, inputs, labels, criterion="misclassified"):
    result = GOOD(model, inputs, labels, criterion)
    if isinstance(criterion, str):
        return result
    adversarial = inputs + 2 * (result.adversarial_inputs - inputs)
    return dataclasses.replace(result, adversarial_inputs=adversarial, distances=2 * result.distances)


def unchecked(model, inputs, labels, criterion="misclassified"):
    if not isinstance(inputs, torch.Tensor):
        return inputs.shape
    return GOOD(model, inputs, labels, criterion)


def vague(model, inputs, labels, criterion="misclassified"):
    try:
        return GOOD(model, inputs, labels, criterion)
    except CaptumLipschitzError as error:
        raise type(error)("something is wrong") from None


def forgiving(model, inputs, labels, criterion="misclassified"):
    return GOOD(model, inputs, labels, "misclassified")


def running_first(model, inputs, labels, criterion="misclassified"):
    if isinstance(inputs, torch.Tensor) and inputs.is_floating_point() and len(inputs) and len(labels) == len(inputs):
        with torch.no_grad():
            modes = [module.training for module in model.modules()] if isinstance(model, torch.nn.Module) else []
            if not any(modes):
                model(inputs), model(inputs)
    return GOOD(model, inputs, labels, criterion)


class Measuring:
    """Says that it measures in RMSE, and measures otherwise."""

    norm = GOOD.norm

    def __call__(self, model, inputs, labels, criterion="misclassified"):
        return changed(distances=lambda result, _: 2 * result.distances)(model, inputs, labels, criterion)


class Leaving:
    """Says that it stays in a box, and leaves it."""

    bounds = MinimumNormAttack(bounds=(0.4999, 0.5001)).bounds

    def __call__(self, model, inputs, labels, criterion="misclassified"):
        return GOOD(model, inputs, labels, criterion)


ones = torch.ones_like
FAULTY: dict[str, tuple[object, str]] = {
    "no attack": (3, "is an AttackLike: expected a callable, got int"),
    "returns a tensor": (
        lambda _, inputs, *__: inputs,
        "returns an AttackResult: expected an AttackResult, got Tensor",
    ),
    "too few rows": (changed(found=lambda r, _: r.found[:-1]), r"one row per image: .*found of shape \(5,\), got \(4,"),
    "a list": (changed(distances=lambda r, _: r.distances.tolist()), "distances to be a tensor, got list"),
    "float32": (in_float32, "dtype and device follow the inputs: expected distances of torch.float64 on cpu"),
    "elsewhere": (
        changed(distances=lambda r, _: r.distances.to("meta")),
        "dtype and device follow the inputs: expected distances of torch.float64 on cpu, got torch.float64 on meta",
    ),
    "with a graph": (changed(distances=lambda r, _: r.distances.clone().requires_grad_()), "returns detached tensors"),
    "unverified success": (
        changed(
            found=lambda r, _: ones(r.found), adversarial_inputs=lambda _, x: x, distances=lambda r, _: r.distances
        ),
        "a found answer is verified by running the model: expected every image that is called found to be misclass",
    ),
    "not found is 0": (
        changed(
            distances=lambda r, _: torch.where(r.found, r.distances, torch.zeros_like(r.distances)),
        ),
        "not found is inf: expected a finite distance exactly where found",
    ),
    "found at 0": (
        changed(distances=lambda r, _: torch.where(r.found, 0 * r.distances, r.distances).nan_to_num(0, math.inf)),
        "verified by running the model: expected distances above 0 where the image was changed",
    ),
    "clean image not found": (
        changed(
            found=lambda r, _: r.found & (r.distances > 0),
            distances=lambda r, _: torch.where(r.distances > 0, r.distances, torch.inf),
        ),
        "a clean image that meets the criterion is its own answer: expected found, at the distance 0",
    ),
    "another image where not found": (
        changed(
            adversarial_inputs=lambda r, x: torch.where(r.found[:, None, None, None], r.adversarial_inputs, x + 1e-3)
        ),
        "the clean image is returned",
    ),
    "another size": (Measuring(), "a distance is the size of the perturbation: expected .*, as .*measures"),
    "out of the box": (Leaving(), "answers stay in the bounds: expected images in"),
    "train mode": (in_train_mode, "a module is run in evaluation mode|leaves no trace: expected the buffers"),
    "leaves train mode on": (
        on_modules(lambda m: m.train()),
        "leaves no trace: expected the train or eval mode of every",
    ),
    "leaves evaluation mode on": (on_modules(lambda m: m.eval()), "leaves no trace: expected the train or eval mode"),
    "only after an error": (
        without_cleaning_up,
        "the train or eval mode .* as before a call that ends in RuntimeError",
    ),
    "thaws": (on_modules(lambda m: m.requires_grad_()), "leaves no trace: expected requires_grad of the parameters"),
    "clears gradients": (on_modules(lambda m: m.zero_grad()), "leaves no trace: expected the parameters' gradients"),
    "gradients of the inputs": (
        doing(lambda _, x, __: setattr(x, "grad", ones(x)) if x.requires_grad else None),
        "leaves no trace: expected the inputs' gradients",
    ),
    "leaves a hook": (
        on_modules(lambda m: m.register_forward_hook(lambda *_: None)),
        "leaves no trace: expected the hooks",
    ),
    "moves BatchNorm": (
        on_modules(lambda m: [b.add_(1) for b in m.buffers()] if m.training else None),
        "leaves no trace: expected the buffers",
    ),
    "draws": (doing(lambda *_: torch.rand(1)), "leaves no trace: expected torch's random state"),
    "draws with Python": (doing(lambda *_: random.random()), "leaves no trace: expected Python's random state"),  # noqa: S311
    "caches on the model": (
        on_modules(lambda m: setattr(m, "cache", 1)),
        "leaves no trace: expected the modules' attr",
    ),
    "swallows an error": (
        swallowing,
        "swallows no error: expected RuntimeError of the model's run .* to reach the caller",
    ),
    "prints": (doing(lambda *_: sys.stdout.write("step 1")), r"prints nothing: expected no output, got 'step 1'"),
    "prints errors": (doing(lambda *_: sys.stderr.write("!")), r"prints nothing: expected no output, got '!'"),
    "global seed": (drawing_globally, "the same seed gives the same bits: expected a second call"),
    "no seed at all": (drawing_anew, "the same seed gives the same bits: expected a second call"),
    "neighbours": (with_the_neighbours, "one image's answer does not depend on its neighbours: expected the rows of a"),
    "criterion by name only": (by_name_only, "takes a criterion as an object or by name: expected the same answer"),
    "no checks": (unchecked, "refuses bad input: .* names 'inputs' for inputs that are no tensor, got AttributeError"),
    "vague": (vague, "refuses bad input: .* names 'inputs' for .* got InvalidTypeError.'something is wrong'"),
    "any criterion": (
        forgiving,
        "names 'criterion' for a criterion that does not exist, got AttackResult as if nothing",
    ),
    "late checks": (running_first, "refuses bad input before any work: expected at most one run .* 2 runs|3 runs"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faults_are_told(fault):
    attack, message = FAULTY[fault]
    dtype = torch.get_default_dtype()
    with pytest.raises(ContractError, match=message) as caught:
        check_attack(attack)
    assert isinstance(caught.value, AssertionError)
    assert torch.get_default_dtype() == dtype


def test_default_dtype():
    def attack(model, inputs, labels, criterion="misclassified"):
        result = GOOD(model, inputs, labels, criterion)
        torch.set_default_dtype(torch.float64)
        return result

    try:
        with pytest.raises(ContractError, match="leaves no trace: expected the default dtype as before"):
            check_attack(attack)
    finally:
        torch.set_default_dtype(torch.float32)


def test_an_attack_that_finds_nothing_is_warned_of():
    def attack(model, inputs, labels, criterion="misclassified"):
        result = GOOD(model, inputs, labels, criterion)
        solved = result.distances == 0
        return AttackResult(
            torch.where(solved[:, None, None, None], result.adversarial_inputs, inputs.detach()),
            torch.where(solved, result.distances, torch.inf),
            solved,
            result.gradient_evaluations,
        )

    with pytest.warns(CaptumLipschitzWarning, match="found nothing"):
        check_attack(attack)


def test_another_shape():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_attack(GOOD, shape=(1, 9))
