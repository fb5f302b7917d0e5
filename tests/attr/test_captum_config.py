"""Captum's own generated tests, for our classes: targets, hooks left behind, TorchScript, DataParallel.

Captum runs its test configuration over all its methods; ``captum_cases`` says which cases are ours and why others are
not. Where the values matter, each runs twice: on Captum's model as it is, explaining its output, and with weights moved
a little, explaining the log-odds (which Captum's models hold constant, as their classes share all weights).
"""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from captum.attr import Attribution
from captum.attr._models.base import _set_deep_layer_value
from captum.attr._utils.input_layer_wrapper import ModelInputWrapper
from captum.testing.attr.helpers.test_config import config
from captum_cases import INPUT_CASES, LAYER_CASES, LEFT_OUT, NOISE_CASES, Case, Subject, load, tensors
from contracts import assert_unchanged, snapshot
from torch import Tensor, nn

import captum_lipschitz.attr
from captum_lipschitz.attr.adversarial import AdversarialAttribution
from captum_lipschitz.attr.contrastive import ContrastiveAdversarialAttribution
from captum_lipschitz.attr.layer import LayerAdversarialAttribution
from captum_lipschitz.attr.minimal import MinimalAdversarialAttribution
from captum_lipschitz.errors import CaptumLipschitzError

# To test a class, add its line here.
SUBJECTS = [
    Subject(AdversarialAttribution),
    # Of outputs that are no classes it has to be told which other one is meant: here one that is no case's target.
    Subject(ContrastiveAdversarialAttribution, tuple_settings={"baseline_target": (1, 0, 1)}, objectives=("log_odds",)),
    Subject(MinimalAdversarialAttribution, objectives=("log_odds",)),  # an output by itself has no boundary near by
    Subject(LayerAdversarialAttribution, layered=True),
    Subject(LayerAdversarialAttribution, {"attribute_to_layer_input": True}, layered=True),
]

# Perturbations are about 0.1 a feature; a wrong row would differ by 0.01 and more. What differs between batch shapes is
# rounding of the model's matrix products, which a path through many kinks can amplify: so values are compared in
# double precision (1e-16 of values up to 300), and in single precision only where the same operations run.
ROUNDING = 1e-9
SINGLE = 1e-6
ON_CUDA = 2e-4  # other kernels, and convolutions in TF32; Captum's own tests allow the same

# Its four examples are of other classes than the target already.
NOTHING_TO_CHANGE = [(MinimalAdversarialAttribution, "conv_layer_single_target")]

# On examples whose ReLUs are all off, nothing changes the output, so nothing is found.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:.*{what}:captum_lipschitz.errors.CaptumLipschitzWarning")
    for what in ("no change was found", "the gradient is zero")
]

# Its classes share all weights before a softmax, so the true gradient of its output is 0 and the computed one (Saliency
# finds 4e-9) is rounding, which any method that normalises gradients makes visible. It runs with its weights moved.
WITHOUT_GRADIENT = "conv_layer_single_target"


EVERY_CASE = [
    pytest.param(subject, name, id=f"{subject.name}-{name}") for subject in SUBJECTS for name in subject.names
]
TWICE = [
    pytest.param(*each.values, objective, id=f"{each.id}-{objective}")
    for each in EVERY_CASE
    for objective in each.values[0].objectives
    if objective == "log_odds" or each.values[1] != WITHOUT_GRADIENT
]
every_case = pytest.mark.parametrize(("subject", "name"), EVERY_CASE)
every_case_twice = pytest.mark.parametrize(("subject", "name", "objective"), TWICE)
FEW_STEPS = {"n_steps": 3}


def test_every_attribution_is_here() -> None:
    exported = (getattr(captum_lipschitz.attr, name) for name in captum_lipschitz.attr.__all__)
    classes = {thing for thing in exported if isinstance(thing, type) and issubclass(thing, Attribution)}
    assert classes == {subject.kind for subject in SUBJECTS}


def test_every_case_of_captums_configuration_is_included_or_left_out_with_a_reason() -> None:
    ours = [*INPUT_CASES, *NOISE_CASES, *LAYER_CASES, *itertools.chain(*LEFT_OUT.values())]
    assert sorted(ours) == sorted(entry["name"] for entry in config)
    wanted = {"inputs", "target", "additional_forward_args", "internal_batch_size"}
    tunnel = {"nt_samples", "nt_samples_batch_size", "stdevs"}
    for name in (*INPUT_CASES, *NOISE_CASES, *LAYER_CASES):
        case = load(name, shaken=False)
        assert set(case.arguments) <= wanted | (tunnel if name in NOISE_CASES else set())
        assert case.noise_tunnel == (name in NOISE_CASES)
        assert (case.layer_name is not None) == (name in LAYER_CASES)


@every_case_twice
def test_a_batch_of_targets_equals_each_example_and_target_alone(subject: Subject, name: str, objective: str) -> None:
    case, settings = _load(name, objective)
    together = list(tensors(subject.attribute(case, **case.arguments, **settings)))
    assert any(part.any() for part in together) or (subject.kind, name) in NOTHING_TO_CHANGE
    for index in range(case.num_rows):
        for arguments in case.row(index):
            alone = subject.attribute(case, **arguments, **settings)
            _assert_close([part[index : index + 1] for part in together], alone)


@every_case_twice
def test_no_noise_and_no_chunks_give_the_same(subject: Subject, name: str, objective: str) -> None:
    case, settings = _load(name, objective)
    if not case.noise_tunnel and "internal_batch_size" not in case.arguments:
        case.arguments["internal_batch_size"] = case.num_rows - 1
    given = subject.attribute(case, **case.arguments, **settings)
    plain = subject.attribute(case, **{**case.plain(), "internal_batch_size": None}, **settings)
    _assert_close(given, plain)


def _load(name: str, objective: str) -> tuple[Case, dict[str, Any]]:
    """The case in double precision, and what to explain of it and how."""
    settings = {"n_steps": 6} if objective == "log_odds" else {"n_steps": 6, "objective": "output"}
    case = load(name, shaken=objective == "log_odds")
    return replace(case, model=case.model.double(), arguments=_moved(case.arguments, torch.float64)), settings


def _moved(value: Any, to: torch.dtype | str) -> Any:
    """All floating tensors in another precision, or all tensors on another device."""
    if isinstance(value, dict):
        return {name: _moved(part, to) for name, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_moved(part, to) for part in value)
    return value.to(to) if isinstance(value, Tensor) and (isinstance(to, str) or value.is_floating_point()) else value


class Stumbling(nn.Module):
    """Raises after running its model for the n-th time, when all hooks of that pass have been at work."""

    def __init__(self, model: nn.Module, calls: int) -> None:
        super().__init__()
        self.model = model
        self.calls = calls

    def forward(self, *inputs: Any) -> Any:
        output = self.model(*inputs)
        self.calls -= 1
        if self.calls == 0:
            raise RuntimeError("stumbled")
        return output


class Broken(nn.Module):
    """A layer that cannot run."""

    def forward(self, *_inputs: Any) -> Any:
        raise RuntimeError("stumbled")


TROUBLES = [
    pytest.param(*each.values, trouble, id=f"{each.id}-{trouble}")
    for each in EVERY_CASE
    for trouble in ("none", "target", "first pass", "third pass", "layer")
    if trouble != "layer" or each.values[0].layered
]


@pytest.mark.parametrize(("subject", "name", "trouble"), TROUBLES)
def test_no_hook_and_no_other_trace_is_left(subject: Subject, name: str, trouble: str) -> None:
    case = load(name, shaken=True)
    _make_state(case.model)
    model: nn.Module = case.model
    output = model(*case.model_inputs).detach()
    arguments = {**case.arguments, **FEW_STEPS}
    if trouble == "target":
        arguments["target"] = (9999,) * 20
    elif trouble == "layer":
        first = case.layer_name if isinstance(case.layer_name, str) else case.layer_name[0]
        _set_deep_layer_value(model, first, Broken())
    elif trouble != "none":
        model = Stumbling(model, 1 if trouble == "first pass" else 3)
    given = [part for part in case.model_inputs if isinstance(part, Tensor)]
    before, hooks = snapshot(model, *given), _hooks(model)
    if trouble == "none":
        subject.attribute(case, **arguments)
    else:
        error = (CaptumLipschitzError, AssertionError) if trouble == "target" else RuntimeError
        with pytest.raises(error, match=None if trouble == "target" else "stumbled"):
            subject.attribute(case, model, **arguments)
    assert _hooks(model) == hooks
    if case.noise_tunnel:  # it draws noise from the global state, as it does for Captum's methods
        del before["rng"]
    assert_unchanged(before, snapshot(model, *given))
    if trouble != "layer":
        assert torch.equal(case.model(*case.model_inputs), output)


def _make_state(model: nn.Module) -> None:
    """Modes, frozen parameters and gradients that differ from the default ones."""
    model.train()
    next(model.children()).eval()
    frozen, learning, *_ = model.parameters()
    frozen.requires_grad_(False)
    learning.grad = torch.ones_like(learning)


def _hooks(model: nn.Module) -> list[int]:
    """How many hooks of every kind hang on each module and parameter, and on all modules at once."""
    kinds = [vars(module) for module in model.modules()] + [vars(nn.modules.module)]
    counts = [len(hooks) for each in kinds for kind, hooks in sorted(each.items()) if kind.endswith("_hooks")]
    return counts + [len(parameter._backward_hooks or ()) for parameter in model.parameters()]


def _ways_to_compile() -> list[Any]:
    """Layer methods are not among them: as with Captum's, a TorchScript module has no activations to replace."""
    ways = []
    for each in EVERY_CASE:
        subject, name = each.values
        case = load(name, shaken=False)
        if not isinstance(case.model, ModelInputWrapper):  # its forward takes keywords, which TorchScript does not know
            ways += [(subject, name, torch.jit.script)] * (not subject.layered)
        if all(isinstance(part, Tensor) for part in case.model_inputs):  # tracing takes no None, numbers or flags
            ways += [(subject, name, torch.jit.trace)] * (not subject.layered)
    return [pytest.param(*way, id=f"{way[0].name}-{way[1]}-{way[2].__name__}") for way in ways]


@pytest.mark.parametrize(("subject", "name", "compiler"), _ways_to_compile())
@pytest.mark.filterwarnings("ignore:.torch.jit")  # deprecated, and in use
def test_torchscript_gives_the_same(subject: Subject, name: str, compiler: Any) -> None:
    case = load(name, shaken=True)
    example = (case.model_inputs,) if compiler is torch.jit.trace else ()
    settings = {**case.arguments, **FEW_STEPS, "return_convergence_delta": True}
    expected, delta = subject.attribute(case, **settings)
    attributions, its_delta = subject.attribute(case, compiler(case.model, *example), **settings)
    _assert_close([attributions, its_delta], [expected, delta], tolerance=SINGLE)


@pytest.mark.skipif(torch.cuda.is_available(), reason="with CUDA, DataParallel takes models on its devices only")
@every_case
def test_data_parallel_without_devices_gives_the_same(subject: Subject, name: str) -> None:
    case = load(name, shaken=True)
    expected = subject.attribute(case, **case.arguments, **FEW_STEPS)
    attributions = subject.attribute(case, nn.DataParallel(case.model), **case.arguments, **FEW_STEPS)
    for ours, theirs in zip(tensors(attributions), tensors(expected), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("devices", ["cuda", "default", "alternate"])
@every_case
def test_data_parallel_on_cuda_gives_the_same(subject: Subject, name: str, devices: str) -> None:
    case = load(name, shaken=True)
    expected = subject.attribute(case, **case.arguments, **FEW_STEPS)
    moved = replace(case, model=copy.deepcopy(case.model).cuda(), arguments=_moved(case.arguments, "cuda"))
    model: Any = moved.model
    made: dict[str, Any] = {}
    if devices != "cuda":
        order = [0, *range(torch.cuda.device_count() - 1, 0, -1)] if devices == "alternate" else None
        model = nn.DataParallel(moved.model, device_ids=order)
        if subject.layered and order is not None:  # a bound method does not say in which order its devices come
            model, made = model.forward, {"device_ids": order}
    attributions = subject.attribute(moved, model, made=made, **moved.arguments, **FEW_STEPS)
    _assert_close(attributions, expected, tolerance=ON_CUDA)


def _assert_close(ours: Any, expected: Any, *, tolerance: float = ROUNDING) -> None:
    for one, other in zip(tensors(ours), tensors(expected), strict=True):
        torch.testing.assert_close(one.cpu(), other, rtol=0, atol=tolerance)
