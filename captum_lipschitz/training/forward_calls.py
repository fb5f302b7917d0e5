"""Which network somebody else's training step runs: its calls are watched, and its inputs are given a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self


class ForwardCall(NamedTuple):
    """One forward pass.

    Attributes:
        name: of what was run.
        inputs: (N, ...), what it was given.
        logits: (N, C), what it returned.
        loss: what it returned as its loss beside them, if it did. In mixed precision a host may return copies of the
            logits, and then this alone tells whether the step's loss came from this pass.
    """

    name: str
    inputs: Tensor
    logits: Tensor
    loss: Tensor | None = None


class ForwardCalls:
    """Within a ``with`` block, notes each forward pass from floating inputs to something of shape (N, C).

    Passes without gradients, and those within another one that is watched, do not count.

    Args:
        networks: what to watch, by name.
        differentiable: whether the inputs are to have a gradient.
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, differentiable: bool) -> None:
        self.calls: list[ForwardCall] = []
        self._networks = networks
        self._differentiable = differentiable
        self._within: list[tuple[nn.Module, Tensor]] = []
        self._hooks: list[RemovableHandle] = []

    def __enter__(self) -> Self:
        for name, network in self._networks.items():
            self._hooks += [
                network.register_forward_pre_hook(self._before, with_kwargs=True),
                network.register_forward_hook(self._namer(name), with_kwargs=True),
            ]
        return self

    def __exit__(self, *_: object) -> None:
        while self._hooks:
            self._hooks.pop().remove()

    def _before(self, module: nn.Module, args: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self._within or not torch.is_grad_enabled():
            return None
        place = next((i for i, value in enumerate(args) if _is_input(value)), None)
        key = next((name for name, value in keywords.items() if _is_input(value)), None)
        if place is None and key is None:
            return None
        given: Tensor = args[place] if place is not None else keywords[str(key)]
        if not self._differentiable:
            self._within.append((module, given))
            return None
        leaf = given if given.requires_grad else given.detach().requires_grad_()
        self._within.append((module, leaf))
        shown = leaf.clone()  # the network may change its inputs in place, which no leaf can be
        if place is not None:
            return (*args[:place], shown, *args[place + 1 :]), keywords
        return args, {**keywords, str(key): shown}

    def _namer(self, name: str) -> Any:
        def after(module: nn.Module, args: Any, keywords: Any, output: Any) -> None:  # noqa: ARG001
            if not self._within or self._within[-1][0] is not module:
                return
            _, inputs = self._within.pop()
            logits, loss = _entry(output, "logits"), _entry(output, "loss")
            if isinstance(output, Tensor):
                logits, loss = output, None
            if isinstance(logits, Tensor) and logits.dim() == 2 and logits.requires_grad and len(logits) == len(inputs):
                own = loss if isinstance(loss, Tensor) and loss.requires_grad else None
                self.calls.append(ForwardCall(name, inputs, logits, own))

        return after


def the_ones_used(calls: list[ForwardCall], loss: Tensor) -> list[tuple[ForwardCall, Tensor | None]]:
    """The calls that a loss was computed from, each with the loss's gradient at its logits, (N, C).

    The gradient is ``None`` where the loss was computed from the call's own loss, and not from the logits it returned.
    """
    if not calls or not loss.requires_grad:
        return []
    factor = float(len(calls[0].logits))  # a mean's gradient is small enough to vanish in float16
    slopes = _gradients(loss, [call.logits for call in calls], factor)
    missing = [call.loss for call, slope in zip(calls, slopes, strict=True) if slope is None and call.loss is not None]
    reached = iter(_gradients(loss, missing, factor))
    used: list[tuple[ForwardCall, Tensor | None]] = []
    for call, slope in zip(calls, slopes, strict=True):
        if slope is not None:
            used.append((call, slope / factor))
        elif call.loss is not None and next(reached) is not None:
            used.append((call, None))
    return used


def _gradients(loss: Tensor, at: list[Tensor], factor: float) -> tuple[Tensor | None, ...]:
    if not at:
        return ()
    return torch.autograd.grad(loss, at, torch.full_like(loss, factor), retain_graph=True, allow_unused=True)


def _is_input(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2


def _entry(output: object, name: str) -> object:
    return output.get(name) if isinstance(output, Mapping) else getattr(output, name, None)
