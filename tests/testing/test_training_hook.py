"""``check_training_hook``: ours passes, and each way of breaking a contract is told by its name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from captum_lipschitz.errors import ContractError, InvalidTypeError
from captum_lipschitz.plugin import create
from captum_lipschitz.testing import check_training_hook


def test_ours_passes(capsys):
    check_training_hook(create("training_hook", "lipschitz", strength=0.1))
    check_training_hook(create("training_hook", "lipschitz", strength=0.1, tandem_probability=1.0), shape=(5,))
    assert capsys.readouterr() == ("", "")


class Handle:
    def __init__(self, *handles: Any) -> None:
        self.handles = list(handles)

    def remove(self) -> None:
        while self.handles:
            self.handles.pop().remove()


def checked(model: object) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
    return model


def forward_hook(what: Callable[..., Any]) -> Callable[[nn.Module], Handle]:
    """A hook that does ``what(model, logits)`` in each forward pass in train mode."""

    def hook(model: nn.Module) -> Handle:
        def seen(module: nn.Module, _: Any, logits: torch.Tensor) -> Any:
            return what(module, logits) if module.training else None

        return Handle(checked(model).register_forward_hook(seen))

    return hook


def attaching(what: Callable[[nn.Module], object]) -> Callable[[nn.Module], Handle]:
    def hook(model: nn.Module) -> Handle:
        what(checked(model))
        return Handle()

    return hook


def test_good_ones_pass():
    check_training_hook(forward_hook(lambda _, logits: logits * 1.5))
    check_training_hook(attaching(lambda _: None))


class Forgetful(Handle):
    def remove(self) -> None:
        """Forget to."""


class Once(Handle):
    def remove(self) -> None:
        self.handles.pop().remove()


class Undone(Handle):
    """Detaches only what did not break."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        model.register_forward_pre_hook(self.begin)
        self.model, self.inside = model, False
        self.ends = model.register_forward_hook(self.end)

    def begin(self, *_: object) -> None:
        self.inside = True

    def end(self, *_: object) -> None:
        self.inside = False

    def remove(self) -> None:
        if not self.inside:
            self.model._forward_pre_hooks.clear()
            self.ends.remove()


class Swallowing(Handle):
    def __init__(self, model: nn.Module) -> None:
        forward = model.forward

        def tolerant(inputs: torch.Tensor) -> torch.Tensor:
            try:
                return forward(inputs)
            except (RuntimeError, KeyboardInterrupt):
                return forward(inputs)

        model.forward = tolerant
        self.model = model

    def remove(self) -> None:
        self.model.__dict__.pop("forward", None)


def draw(_: object, logits: torch.Tensor) -> torch.Tensor:
    return logits + 0 * torch.rand_like(logits)


def scale(model: nn.Module) -> Handle:
    return Handle(checked(model).register_forward_hook(lambda _, __, logits: 2 * logits))


FAULTY: dict[str, tuple[Any, str]] = {
    "no hook": (3, "is a TrainingHookLike: expected a callable, got int"),
    "no handle": (lambda _: None, r"returns a handle: expected an object with remove\(\), got NoneType"),
    "evaluation mode": (attaching(lambda m: m.eval()), "leaves no trace: expected the train or eval mode .* attached"),
    "changes parameters": (
        attaching(lambda m: [p.data.mul_(2) for p in m.parameters()]),
        "leaves no trace: expected the parameters' values as before it was attached",
    ),
    "a new buffer": (
        attaching(lambda m: m.register_buffer("step", torch.zeros(()))),
        "leaves no trace: expected the buffers|checkpoints keep their names",
    ),
    "a new module": (
        attaching(lambda m: m.register_module("head", nn.Linear(2, 2))),
        "leaves no trace|checkpoints keep their names",
    ),
    "draws": (forward_hook(draw), "leaves no trace: expected torch's random state as before a training step with it"),
    "thaws": (
        forward_hook(lambda m, _: m.requires_grad_() and None),
        "leaves no trace: expected requires_grad of the parameters|frozen parameters stay frozen",
    ),
    "a frozen gradient": (
        forward_hook(lambda m, _: [setattr(p, "grad", torch.zeros_like(p)) for p in m.parameters()] and None),
        "frozen parameters stay frozen: expected no gradient, got one",
    ),
    "no gradient": (
        forward_hook(lambda _, logits: logits.detach().requires_grad_()),
        "trains the model: expected a gradient of every parameter that is trained, got none",
    ),
    "NaN": (forward_hook(lambda _, logits: logits * torch.nan), "trains the model: expected finite gradients"),
    "in evaluation too": (scale, "evaluation is left alone: expected the outputs of evaluation mode"),
    "forgets to detach": (
        lambda model: Forgetful(checked(model).register_forward_hook(lambda *_: None)),
        r"remove\(\) detaches: expected the hooks as before remove\(\)",
    ),
    "leaves its mark": (attaching(lambda m: setattr(m, "mark", 1)), r"remove\(\) detaches: expected the modules' attr"),
    "only after an error": (
        lambda model: Undone(checked(model)),
        r"remove\(\) detaches: expected the hooks as before remove\(\) that follows a step that ended in RuntimeError",
    ),
    "swallows": (
        lambda model: Swallowing(checked(model)),
        "swallows no error: expected RuntimeError of the model to reach the training loop",
    ),
    "takes anything": (lambda _: Handle(), "refuses bad input: .* names 'model' .* got Handle as if nothing"),
    "unclear refusal": (
        lambda model: Handle(model.register_forward_hook(lambda *_: None)),
        "refuses bad input: .* names 'model' for a model that is no nn.Module, got AttributeError",
    ),
    "prints": (
        forward_hook(lambda *_: sys.stdout.write("step") and None),
        r"prints nothing: expected no output, got 'step'",
    ),
    "prints at attaching": (attaching(lambda _: sys.stdout.write("attached")), "prints nothing: expected no output"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faults_are_told(fault):
    hook, message = FAULTY[fault]
    with pytest.raises(ContractError, match=message):
        check_training_hook(hook)


def test_a_second_removal_must_do_nothing():
    with pytest.raises(ContractError, match=r"a second remove\(\) does nothing: expected .* got IndexError"):
        check_training_hook(lambda model: Once(checked(model).register_forward_hook(lambda *_: None)))
