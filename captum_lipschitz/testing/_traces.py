"""What a component could leave behind, and how it is seen."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from captum_lipschitz.errors import ContractError
from captum_lipschitz.testing._contract import quiet, require
from captum_lipschitz.testing._networks import Case, worth_keeping

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")
_TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def snapshot(model: nn.Module, *tensors: Tensor) -> dict[str, Any]:
    """All that contract 1 of DESIGN holds, by what it is called in a message."""
    return {**_state_of(model, *tensors), **global_state()}


def _state_of(model: nn.Module, *tensors: Tensor) -> dict[str, Any]:
    modules, parameters = list(model.modules()), list(model.parameters())
    return {
        "the train or eval mode of every submodule": [module.training for module in modules],
        "requires_grad of the parameters": [parameter.requires_grad for parameter in parameters],
        "requires_grad of the inputs": [tensor.requires_grad for tensor in tensors],
        "the parameters' gradients": [_copied(parameter.grad) for parameter in parameters],
        "the inputs' gradients": [_copied(tensor.grad) for tensor in tensors],
        "the parameters' values": [_copied(parameter) for parameter in parameters],
        "the inputs' values": [_copied(tensor) for tensor in tensors],
        "the buffers": [_copied(buffer) for buffer in model.buffers()],
        "the hooks": [list(getattr(module, name)) for module in modules for name in _HOOKS],
        "the tensors' hooks": [list(getattr(t, n) or ()) for t in (*parameters, *tensors) for n in _TENSOR_HOOKS],
        "the submodules": [id(module) for module in modules],
        "the modules' attributes": [sorted(vars(module)) for module in modules],
    }


def global_state() -> dict[str, Any]:
    """What belongs to the whole program."""
    return {
        "torch's random state": torch.get_rng_state(),
        "the GPUs' random states": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "NumPy's random state": pickle.dumps(np.random.get_state()),  # noqa: NPY002 - the global one
        "Python's random state": random.getstate(),
        "the default dtype": torch.get_default_dtype(),
        "the default device": torch.get_default_device(),
        "whether gradients are enabled": torch.is_grad_enabled(),
        "inference mode": torch.is_inference_mode_enabled(),
        "the number of threads": torch.get_num_threads(),
        "whether algorithms are deterministic": torch.are_deterministic_algorithms_enabled(),
        "cuDNN's flags": (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic),
    }


def require_same(before: dict[str, Any], after: dict[str, Any], when: str, contract: str = "leaves no trace") -> None:
    """Compare two snapshots, to the bit."""
    for name, old in before.items():
        if not same(old, after[name]):
            raise ContractError(f"{contract}: expected {name} as before {when}, got {_difference(old, after[name])}")


def same(a: Any, b: Any) -> bool:
    """Whether two snapshots' entries are equal, to the bit."""
    if isinstance(a, Tensor):
        return isinstance(b, Tensor) and a.shape == b.shape and torch.equal(a, b)
    if isinstance(a, list):
        return isinstance(b, list) and len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return type(a) is type(b) and bool(a == b)


@contextmanager
def untouched(case: Case) -> Iterator[None]:
    """Inside, a component runs on the case; it prints nothing and leaves no trace."""
    before = snapshot(case.model, case.inputs, case.labels)
    with quiet():
        yield
    require_same(before, snapshot(case.model, case.inputs, case.labels), "a call that succeeds")


def check_traces(call: Callable[[Case], object], make: Callable[[], Case]) -> None:
    """A component leaves everything as it was: after an answer, after the model's error, after Ctrl-C.

    Args:
        call: runs the component on a case.
        make: builds the same case anew.
    """
    case = worth_keeping(make())
    with untouched(case):
        call(case)
    runs = case.model.runs
    for error in (RuntimeError("the model broke"), KeyboardInterrupt()):
        for breaks_at in sorted({1, (runs + 1) // 2} - {0}):
            _check_breaking(call, worth_keeping(make()), error, breaks_at)


def _check_breaking(call: Callable[[Case], object], case: Case, error: BaseException, breaks_at: int) -> None:
    kind = type(error).__name__
    case.model.error, case.model.breaks_at = error, breaks_at
    before = snapshot(case.model, case.inputs, case.labels)
    try:
        with quiet():
            call(case)
    except ContractError:
        raise
    except BaseException as met:
        if (
            met is not error
            and met.__cause__ is not error
            and (kind == "KeyboardInterrupt" or met.__context__ is not error)
        ):
            raise
    else:
        swallowed = case.model.runs >= breaks_at
        require(
            not swallowed, "swallows no error", f"{kind} of the model's run {breaks_at} to reach the caller", "none"
        )
    require_same(before, snapshot(case.model, case.inputs, case.labels), f"a call that ends in {kind}")


def _copied(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach().clone()


def _difference(old: Any, new: Any) -> str:
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        changed = [i for i, (x, y) in enumerate(zip(old, new, strict=True)) if not same(x, y)]
        first = changed[0]
        return f"{len(changed)} of {len(old)} changed, the first from {_short(old[first])} to {_short(new[first])}"
    return f"{_short(new)} in place of {_short(old)}"


def _short(value: Any) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= 60 else text[:57] + "..."
