"""Hooks that attach to a host's class: a good one passes, and each way of breaking a contract is told."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest
import torch

from captum_lipschitz.errors import ContractError, InvalidTypeError, MissingDependencyError
from captum_lipschitz.plugin import ComponentSpec, hookimpl, needing
from captum_lipschitz.testing import check_plugin, check_training_hook

TASK = "acme.tasks.Task"


class Task:
    def __init__(self) -> None:
        self.loss = abs


class Handle:
    """Puts another loss in; ``remove`` puts the first one back."""

    def __init__(self, task: Any, loss: Callable[..., Any] = max) -> None:
        self.task, self.before, task.loss = task, task.loss, loss

    def remove(self) -> None:
        self.task.loss = self.before


class Once(Handle):
    def remove(self) -> None:
        super().remove()
        del self.before


class Forgetful(Handle):
    def remove(self) -> None:
        """Forget to."""


def hook(attach: Callable[[Any], object] = Handle, *, refusal: str = TASK) -> Callable[[object], Any]:
    def attaching(task: object, /) -> Any:
        if not isinstance(task, Task):
            raise InvalidTypeError(f"task: expected a {refusal}, got {type(task).__name__}")
        return attach(task)

    return attaching


def plugin(factory: Callable[..., Any], attaches_to: str = TASK) -> types.SimpleNamespace:
    spec = ComponentSpec("acme:penalty", "training_hook", factory, "in a task", "", attaches_to=attaches_to)

    def captum_lipschitz_training_hooks() -> list[ComponentSpec]:
        return [spec]

    return types.SimpleNamespace(captum_lipschitz_training_hooks=hookimpl(captum_lipschitz_training_hooks))


def good(*, strength: float = 1.0) -> Any:
    return hook()


def test_good_ones_pass(capsys):
    check_training_hook(hook(), attaches_to=TASK)
    check_training_hook(hook(), attaches_to=TASK, host=Task())
    (checked,) = check_plugin(plugin(good), settings={"acme:penalty": {"strength": 0.1}}, hosts={"acme:penalty": Task})
    assert checked.attaches_to == TASK
    assert capsys.readouterr() == ("", "")


def attaches_to_anything(given: Any) -> Handle:
    return Handle(types.SimpleNamespace(loss=abs))


def changes_what_it_refuses(given: Any) -> Any:
    if isinstance(given, torch.nn.Module):
        given.eval()
    return hook()(given)


def missing(given: object) -> Any:
    with needing("acme"):
        import acme  # noqa: F401 - which there is none of


FAULTY: dict[str, tuple[Any, str]] = {
    "no hook": (3, "is a TrainingHookLike: expected a callable, got int"),
    "takes anything": (
        attaches_to_anything,
        "refuses bad input: .*'acme.tasks.Task' for a plain nn.Module, got Handle",
    ),
    "another class's name": (
        hook(refusal="Task"),
        "refuses bad input: .* names 'acme.tasks.Task' for a plain nn.Module",
    ),
    "unclear refusal": (
        Handle,
        "refuses bad input: .* names 'acme.tasks.Task' for a plain nn.Module, got AttributeError",
    ),
    "marks it": (changes_what_it_refuses, "leaves no trace: expected the train or eval mode .* refused"),
    "absent host": (missing, "raises nothing at good input: .*MissingDependencyError.*run: pip install acme"),
    "no handle": (hook(lambda _: None), r"returns a handle: expected an object with remove\(\), got NoneType"),
    "forgets to detach": (hook(Forgetful), r"remove\(\) detaches: expected loss as before remove\(\)"),
    "only once": (hook(Once), r"a second remove\(\) does nothing: expected no error, got AttributeError"),
    "leaves its mark": (
        hook(lambda task: (setattr(task, "mark", 1), Handle(task))[1]),
        r"remove\(\) detaches: expected mark as before remove\(\), got 1",
    ),
    "draws": (
        hook(lambda task: (torch.rand(1), Handle(task))[1]),
        "leaves no trace: expected torch's random state as before it was attached and removed",
    ),
    "prints": (hook(lambda task: (print("on"), Handle(task))[1]), "prints nothing: expected no output, got 'on"),  # noqa: T201
    "breaks": (hook(lambda _: {}["a"]), "raises nothing at good input: .* the training hook, got KeyError"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faults_are_told(fault):
    faulty, message = FAULTY[fault]
    with pytest.raises(ContractError, match=message):
        check_training_hook(faulty, attaches_to=TASK, host=Task())


def refuse(*, strength: float = 1.0) -> Any:
    raise InvalidTypeError("strength: expected another")


def absent(*, strength: float = 1.0, **settings: Any) -> Any:
    with needing("acme"):
        import acme  # noqa: F401


def demanding(*, strength: float) -> Any:
    return hook()


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (plugin(good, ""), "training_hook 'acme:penalty': raises nothing at good input: .*expected a acme.tasks.Task"),
        (plugin(refuse), "training_hook 'acme:penalty': raises nothing at good input: .*strength: expected another"),
        (plugin(absent), "training_hook 'acme:penalty': raises nothing at good input: .*run: pip install acme"),
        (plugin(demanding), "training_hook 'acme:penalty': raises nothing .*missing 1 required keyword-only argument"),
    ],
)
def test_every_exception_names_the_component(broken, message):
    with pytest.raises(ContractError, match=message) as caught:
        check_plugin(broken)
    assert caught.value.__cause__ is not None


def test_an_absent_host_is_told_with_its_cause():
    with pytest.raises(ContractError) as caught:
        check_plugin(plugin(absent))
    causes = [caught.value.__cause__, caught.value.__cause__.__cause__]
    assert [type(cause) for cause in causes] == [ContractError, MissingDependencyError]


def test_hosts_are_of_components_that_attach_to_one():
    with pytest.raises(ContractError, match=r"hosts name components of the plugin: expected any of \[\], got \['acme:"):
        check_plugin(plugin(good, ""), hosts={"acme:penalty": Task})


def test_the_callers_own_errors_are_the_callers():
    with pytest.raises(RuntimeError, match="no_such_device"):
        check_plugin(plugin(good), device="no_such_device")
    with pytest.raises(ZeroDivisionError):
        check_plugin(plugin(good), hosts={"acme:penalty": lambda: 1 / 0})
    with pytest.raises(KeyboardInterrupt):
        check_training_hook(hook(interrupt), attaches_to=TASK, host=Task())


def interrupt(_: object) -> Any:
    raise KeyboardInterrupt
