"""The contracts of a training hook."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from captum_lipschitz.errors import ContractError
from captum_lipschitz.plugin import Removable, TrainingHookLike
from captum_lipschitz.testing._contract import BadCall, answering, check_refusals, quiet, require
from captum_lipschitz.testing._hosts import check_attachment, check_host_refusals
from captum_lipschitz.testing._networks import SHAPE, Case, build_case
from captum_lipschitz.testing._traces import global_state, require_same, same, snapshot


def check_training_hook(
    hook: TrainingHookLike,
    *,
    shape: Sequence[int] = SHAPE,
    device: torch.device | str = "cpu",
    attaches_to: str = "",
    host: object = None,
) -> None:
    """Check that a training hook keeps the contracts, on a small seeded network trained with cross entropy.

    Attaching it moves nothing but hooks. A training step with it gives finite gradients to the parameters that are
    trained and none to the others, of their dtype; it leaves modes, ``requires_grad``, the inputs and all global state
    alone, random states included; in evaluation mode it changes no output; the checkpoint's names are the model's.
    ``remove()`` detaches it, also after an error or Ctrl-C inside a step: hooks, modules and the gradients of a step
    are those without it; a second ``remove()`` does nothing. A model that is no module is refused. Nothing is printed.

    Of a hook that attaches to objects of a host's class the network's training shows nothing. Held is that it refuses
    a plain ``nn.Module`` and a string with an exception of ``captum_lipschitz.errors`` that names the class; and, with
    ``host``, that attaching gives a handle, and that ``remove()``, the first and the second, leaves the object's class
    and attributes as they were, and all global state alone.

    Args:
        hook: what a component's factory made: called with a model, it returns a handle with ``remove()``.
        shape: of one image.
        device: where to run.
        attaches_to: the component's, see ``ComponentSpec``; empty for a hook that attaches to any ``nn.Module``.
        host: an object of that class; ``None`` where there is none at hand.

    Raises:
        ContractError: (an ``AssertionError``) for a contract that is not kept: which, what was expected, what came.

    Example:
        >>> from captum_lipschitz.plugin import create
        >>> from captum_lipschitz.testing import check_training_hook
        >>> check_training_hook(create("training_hook", "lipschitz", strength=0.1))
    """
    require(callable(hook), "is a TrainingHookLike", "a callable", type(hook).__name__)
    case = _trained(shape, device)
    with answering("the training hook"):
        if attaches_to:
            check_host_refusals(hook, attaches_to, case)
            if host is not None:
                check_attachment(hook, host)
        else:
            _check_hook(hook, shape, device)


def _check_hook(hook: TrainingHookLike, shape: Sequence[int], device: torch.device | str) -> None:
    for dtype in (torch.float32, torch.float64):
        _check_step(hook, _trained(shape, device, dtype))
    _check_evaluation_mode(hook, _trained(shape, device))
    _check_removal(hook, lambda: _trained(shape, device))
    for error in (RuntimeError("the model broke"), KeyboardInterrupt()):
        _check_removal(hook, lambda: _trained(shape, device), error)
    check_refusals([BadCall("a model that is no nn.Module", ["model"], lambda: hook("no module"))])


def _trained(shape: Sequence[int], device: torch.device | str, dtype: torch.dtype = torch.float32) -> Case:
    """A model in train mode, one parameter frozen; no dropout, whose draws would be the model's own."""
    case = build_case(shape, device, dtype=dtype, dropout=0.0)
    case.model.train()
    case.model.first.bias.requires_grad_(False)  # noqa: FBT003 - torch takes it by position
    case.model.register_forward_hook(lambda *_: None)
    return case


def _attach(hook: TrainingHookLike, case: Case) -> Removable:
    with quiet():
        handle = hook(case.model)
    require(isinstance(handle, Removable), "returns a handle", "an object with remove()", type(handle).__name__)
    return handle


def _step(case: Case) -> list[Tensor | None]:
    """The parameters' gradients of one training step, in which the model may break."""
    case.model.zero_grad()
    with quiet():
        F.cross_entropy(case.model(case.inputs), case.labels).backward()
    return [None if parameter.grad is None else parameter.grad.clone() for parameter in case.model.parameters()]


def _check_step(hook: TrainingHookLike, case: Case) -> None:
    model = case.model
    before = snapshot(model, case.inputs, case.labels)
    names = list(model.state_dict())
    handle = _attach(hook, case)
    _require_same_but_hooks(before, snapshot(model, case.inputs, case.labels), "it was attached")
    require(list(model.state_dict()) == names, "checkpoints keep their names", f"{names}", list(model.state_dict()))
    frozen = [not parameter.requires_grad for parameter in model.parameters()]
    gradients = _step(case)
    after = snapshot(model, case.inputs, case.labels)
    trained = ("the parameters' gradients", "the buffers")  # which a training step is there to change
    _require_same_but_hooks(
        {name: value for name, value in before.items() if name not in trained}, after, "a training step with it"
    )
    for gradient, left_out in zip(gradients, frozen, strict=True):
        if left_out:
            require(gradient is None, "frozen parameters stay frozen", "no gradient", "one")
        elif gradient is None:
            require(False, "trains the model", "a gradient of every parameter that is trained", "none")  # noqa: FBT003
        else:
            require(bool(torch.isfinite(gradient).all()), "trains the model", "finite gradients", "NaN or infinity")
    with quiet():
        handle.remove()


def _require_same_but_hooks(before: dict[str, Any], after: dict[str, Any], when: str) -> None:
    ours = ("the hooks", "the tensors' hooks", "the submodules", "the modules' attributes")
    require_same({name: value for name, value in before.items() if name not in ours}, after, when)


def _check_evaluation_mode(hook: TrainingHookLike, case: Case) -> None:
    case.model.eval()
    with quiet(), torch.no_grad():
        expected = case.model(case.inputs)
        handle = _attach(hook, case)
        before = global_state()
        found = case.model(case.inputs)
        after = global_state()
    require(
        isinstance(found, Tensor) and torch.equal(expected, found),
        "evaluation is left alone",
        "the outputs of evaluation mode to be the model's own",
        "others",
    )
    require_same(before, after, "a run in evaluation mode")
    with quiet():
        handle.remove()


def _check_removal(hook: TrainingHookLike, make: Callable[[], Case], error: BaseException | None = None) -> None:
    """After ``remove()`` nothing of the hook is left, whether the step went well or not."""
    plain = _step(make())
    case = make()
    before = snapshot(case.model, case.inputs, case.labels)
    handle = _attach(hook, case)
    when = "remove()"
    if error is None:
        _step(case)
    else:
        when = f"remove() that follows a step that ended in {type(error).__name__}"
        _break(case, error)
    with quiet():
        handle.remove()
    try:
        with quiet():
            handle.remove()
    except Exception as again:
        raise ContractError(f"a second remove() does nothing: expected no error, got {again!r}") from again
    case.model.load_state_dict(make().model.state_dict())
    case.model.zero_grad()
    contract = "remove() detaches"
    require_same(before, snapshot(case.model, case.inputs, case.labels), when, contract)
    found = _step(case)
    require(same(plain, found), contract, f"after {when} the gradients of a step without the hook", "others")


def _break(case: Case, error: BaseException) -> None:
    model = case.model
    model.error, model.breaks_at = error, model.runs + 1
    try:
        _step(case)
    except BaseException as met:
        if met is not error and met.__cause__ is not error:
            raise
    else:
        expected = f"{type(error).__name__} of the model to reach the training loop"
        require(model.runs < model.breaks_at, "swallows no error", expected, "none")
    model.breaks_at = 0
