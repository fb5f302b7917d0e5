"""The contracts of a training hook that attaches to objects of a host's class, as far as we can see them."""

from __future__ import annotations

import functools
from typing import Any

from captum_lipschitz.errors import ContractError
from captum_lipschitz.plugin import Removable, TrainingHookLike
from captum_lipschitz.testing._contract import BadCall, check_refusals, quiet, require
from captum_lipschitz.testing._networks import Case
from captum_lipschitz.testing._traces import global_state, require_same, snapshot


def check_host_refusals(hook: TrainingHookLike, attaches_to: str, case: Case) -> None:
    """What is no object of the host's class is refused by the class's name, and left as it was."""
    before = snapshot(case.model, case.inputs, case.labels)
    wrong = {"a plain nn.Module": case.model, "a string": "no object of a host"}
    check_refusals([BadCall(what, [attaches_to], functools.partial(hook, given)) for what, given in wrong.items()])
    require_same(before, snapshot(case.model, case.inputs, case.labels), "it was refused")


def check_attachment(hook: TrainingHookLike, host: object) -> None:
    """Attaching gives a handle, and a first and a second ``remove()`` leave the object as it was."""
    before, program = _parts(host), global_state()
    with quiet():
        handle = hook(host)
    require(isinstance(handle, Removable), "returns a handle", "an object with remove()", type(handle).__name__)
    with quiet():
        handle.remove()
    _require_parts(before, host, "remove()")
    try:
        with quiet():
            handle.remove()
    except Exception as again:
        raise ContractError(f"a second remove() does nothing: expected no error, got {again!r}") from again
    _require_parts(before, host, "a second remove()")
    require_same(program, global_state(), "it was attached and removed")


def _parts(host: object) -> dict[str, Any]:
    return {"its class": type(host), **dict(getattr(host, "__dict__", {}))}


def _require_parts(before: dict[str, Any], host: object, when: str) -> None:
    after = _parts(host)
    for name in sorted({*before, *after}):
        same = name in before and name in after and before[name] is after[name]
        require(same, "remove() detaches", f"{name} as before {when}", repr(after.get(name, "none"))[:80])
