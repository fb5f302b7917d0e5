"""Which network a training step runs: its calls are watched, and its inputs are given a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle
from typing_extensions import Self

from captum_lipschitz.errors import UnsupportedTrainingError


class Call(NamedTuple):
    """One forward pass: the name of what was run, its inputs (N, ...), and the logits (N, C) it returned."""

    name: str
    inputs: Tensor
    logits: Tensor


class WatchedCalls:
    """Within a ``with`` block, notes each forward pass from floating inputs to something of shape (N, C).

    Passes without gradients, and those within another one that is watched, do not count.

    Args:
        networks: what to watch, by name.
        differentiable: whether the inputs are to have a gradient.
    """

    def __init__(self, networks: Mapping[str, nn.Module], *, differentiable: bool) -> None:
        self.calls: list[Call] = []
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
            logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
            if isinstance(logits, Tensor) and logits.dim() == 2 and logits.requires_grad and len(logits) == len(inputs):
                self.calls.append(Call(name, inputs, logits))

        return after


def the_one_used(calls: list[Call], loss: Tensor, watched: Mapping[str, nn.Module]) -> tuple[Call, Tensor]:
    """The one call that a loss was computed from, and the loss's gradient at its logits, (N, C).

    Raises:
        UnsupportedTrainingError: it was none, or several.
    """
    used: list[tuple[Call, Tensor]] = []
    if calls and loss.requires_grad:
        factor = float(len(calls[0].logits))  # a mean's gradient is small enough to vanish in float16
        slopes = torch.autograd.grad(
            loss,
            [call.logits for call in calls],
            torch.full_like(loss, factor),
            retain_graph=True,
            allow_unused=True,
        )
        used = [(call, slope / factor) for call, slope in zip(calls, slopes, strict=True) if slope is not None]
    if len(used) != 1:
        found = ", ".join(call.name for call, _ in used) or "none"
        raise UnsupportedTrainingError(
            "training_step: expected a loss computed from the logits, (N, C), of one call of one network on the "
            f"batch's inputs; of the calls of {', '.join(watched)} it was computed from: {found}. Name the network "
            'that returns the logits, model="net" or model=lambda module: module.net; a step that runs it several '
            "times has to add the penalty by itself: regularizer(logits, inputs, labels, task_loss=loss).loss"
        )
    return used[0]


def _is_input(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dim() >= 2
