"""``check_attribution`` (ours pass in test_plugin.py): each way of breaking a contract is told by its name."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch

from captum_lipschitz.attr import AdversarialAttribution
from captum_lipschitz.errors import ContractError
from captum_lipschitz.testing import check_attribution


def test_another_shape(capsys):
    check_attribution(AdversarialAttribution, shape=(7,))
    assert capsys.readouterr() == ("", "")


def build(after: Callable[..., Any] = lambda found, *_: found) -> type:
    """A quick good attribution whose answer, model and inputs are given to ``after``."""

    class Changed:
        def __init__(self, forward_func: Callable[..., Any]) -> None:
            self.forward_func = forward_func

        def attribute(self, inputs: Any, target: Any = None) -> Any:
            found = AdversarialAttribution(self.forward_func).attribute(inputs, target, n_steps=2)
            return after(found, self.forward_func, inputs)

    return Changed


def on_modules(what: Callable[[torch.nn.Module], object]) -> type:
    def after(found, model, inputs):
        if isinstance(model, torch.nn.Module):
            what(model)
        return found

    return build(after)


class Plain:
    """Gradients of the target's logit, with no check of anything; it cleans up only where nothing fails."""

    def __init__(self, forward_func: torch.nn.Module) -> None:
        self.forward_func = forward_func

    def attribute(self, inputs, target=None):
        handle = self.forward_func.register_forward_hook(lambda *_: None)
        buffers = [buffer.clone() for buffer in self.forward_func.buffers()]
        state = torch.get_rng_state()
        leaf = inputs.detach().requires_grad_()
        with torch.enable_grad():
            chosen = self.forward_func(leaf).gather(1, target[:, None]).sum()
        (found,) = torch.autograd.grad(chosen, leaf)
        handle.remove()
        torch.set_rng_state(state)
        for buffer, before in zip(self.forward_func.buffers(), buffers, strict=True):
            buffer.data.copy_(before)
        return found


def unchecked(model):
    class Unchecked:
        def attribute(self, inputs, target=None):
            if not inputs.is_floating_point():
                return inputs
            return AdversarialAttribution(model).attribute(inputs, target, n_steps=2)

    return Unchecked()


def drawing(found, *_):
    with torch.random.fork_rng():
        return found * (1 + torch.rand(()).to(found))


FAULTY: dict[str, tuple[Any, str]] = {
    "no factory": (3, "is a factory of attributions: expected a callable, got int"),
    "makes something else": (
        lambda _: 3,
        "the factory makes an AttributionLike: expected an object with .* got int",
    ),
    "a tuple": (build(lambda found, *_: (found,)), "returns a tensor for a tensor: expected one, got tuple"),
    "another shape": (
        build(lambda found, *_: found.sum(1)),
        r"attributions are shaped as the inputs: expected \(5, 3, 6, 6\), got \(5, 6, 6\)",
    ),
    "float32": (build(lambda found, *_: found.float()), "dtype and device follow the inputs: .*float64 .*float32"),
    "elsewhere": (build(lambda found, *_: found.to("meta")), "dtype and device follow the inputs: .* on meta"),
    "NaN": (build(lambda found, *_: found * torch.nan), "attributions are finite: expected finite values"),
    "a graph": (build(lambda found, *_: found.clone().requires_grad_()), "returns detached tensors"),
    "hooks": (on_modules(lambda m: m.register_forward_hook(lambda *_: None)), "leaves no trace: expected the hooks"),
    "backward hooks": (
        on_modules(lambda m: m.register_full_backward_hook(lambda *_: None)),
        "leaves no trace: expected the hooks",
    ),
    "evaluation mode": (on_modules(lambda m: m.eval()), "leaves no trace: expected the train or eval mode"),
    "requires_grad of the inputs": (
        build(lambda found, _, inputs: inputs.requires_grad_() * 0 + found if not inputs.requires_grad else found),
        "leaves no trace: expected requires_grad of the inputs",
    ),
    "changes the inputs": (
        build(lambda found, _, inputs: (inputs.data.add_(0.01), found)[1]),
        "leaves no trace: expected the inputs' values",
    ),
    "hooks after an error": (Plain, "leaves no trace: expected the hooks as before a call that ends in RuntimeError"),
    "prints": (build(lambda found, *_: (sys.stdout.write("done"), found)[1]), "prints nothing: expected no output"),
    "global seed": (build(drawing), "the same seed gives the same bits"),
    "neighbours": (
        build(lambda found, *_: found / found.abs().amax()),
        "one image's answer does not depend on its neighbours: expected the rows of a batch that is split",
    ),
    "order": (
        build(lambda found, *_: found * torch.arange(1, 1 + len(found)).to(found)[:, None, None, None]),
        "depend on its neighbours: expected the rows of a batch that is permuted",
    ),
    "unchecked": (unchecked, "refuses bad input: .* names 'inputs' for integer inputs, got Tensor as if nothing"),
}


@pytest.mark.parametrize("fault", FAULTY)
def test_faults_are_told(fault):
    factory, message = FAULTY[fault]
    with pytest.raises(ContractError, match=message):
        check_attribution(factory)


def test_settings_are_bound_with_partial():
    def factory(model, *, scale):
        return build(lambda found, *_: scale * found)(model)

    check_attribution(functools.partial(factory, scale=2.0))
    with pytest.raises(ContractError, match="finite"):
        check_attribution(functools.partial(factory, scale=torch.inf))


def test_the_own_generator_is_the_seed():
    class Drawing:
        generator = torch.Generator().manual_seed(0)

    class Seeded(Drawing):
        def __init__(self, generator):
            self.generator = generator

        def __call__(self, model):
            def after(found, *_):
                return found * (1 + torch.rand((), generator=self.generator).to(found))

            return build(after)(model)

    check_attribution(Seeded(torch.Generator().manual_seed(0)))
