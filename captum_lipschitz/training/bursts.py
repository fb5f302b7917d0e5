"""Notices where a penalty on every k-th step only meets an optimiser that bursts do not average out in."""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from captum_lipschitz.errors import CaptumLipschitzWarning

_ALIKE = 1e-3  # relative difference of two gradient norms that only clipping brings about
_COMPARED = 3  # steps with a penalty
_OTHERS = 100  # steps of other optimisers, after which it is not looked for any more


class BurstWatch:
    """Looks at the first optimiser steps of a regularizer with ``every`` > 1, and warns where they are not linear.

    k times the penalty on each k-th step is the penalty on every step where steps add up, as in SGD. An adaptive
    optimiser divides by a running size of the gradient, and clipping cuts what is large: both change with the bursts.
    The optimiser is met by a hook that torch calls before each ``step()``; it is taken away again after a few steps.
    Clipping is told by gradients of the same norm at several steps with a penalty.

    Args:
        every: k; with 1 there is nothing to look at.
    """

    def __init__(self, every: int) -> None:
        self.every = every
        self._wanted = every > 1
        self._trained: set[int] = set()
        self._norms: list[Tensor] = []
        self._due = False
        self._others = 0
        self._hook: RemovableHandle | None = None

    def __reduce__(self) -> tuple[type[BurstWatch], tuple[int]]:
        return BurstWatch, (self.every,)  # a copy trains other parameters

    def wants_parameters(self) -> bool:
        """Whether it waits to be told what is trained."""
        return self._wanted and self._hook is None

    def watch(self, parameters: Iterable[Tensor]) -> None:
        """Look at the optimiser that steps these parameters."""
        self._trained = {id(parameter) for parameter in parameters}
        look = weakref.WeakMethod(self._look)  # the hook must not keep a regularizer alive that is no longer used

        def see(optimizer: Optimizer, *_: Any) -> None:
            alive = look()
            if alive is not None:
                alive(optimizer)

        self._hook = register_optimizer_step_pre_hook(see)
        weakref.finalize(self, self._hook.remove)

    def next_step(self, *, due: bool) -> None:
        """The optimiser step that follows has a penalty, or not."""
        self._due = due
        if self._hook is not None and not self._wanted:
            self._hook.remove()

    def _look(self, optimizer: Optimizer) -> None:
        if not self._wanted or torch.compiler.is_compiling():
            return
        stepped = [p for group in optimizer.param_groups for p in group["params"]]
        if not any(id(parameter) in self._trained for parameter in stepped):
            self._others += 1
            if self._others == _OTHERS:
                self._end(None)
            return
        if _is_adaptive(optimizer):
            self._end(f"{type(optimizer).__name__} divides by a running size of the gradient")
        elif self._due:
            self._measure([p.grad.detach() for p in stepped if p.grad is not None])

    def _measure(self, gradients: list[Tensor]) -> None:
        if gradients:
            norms = [gradient.norm().to(gradients[0].device) for gradient in gradients]
            self._norms.append(torch.stack(norms).norm())
        if len(self._norms) == _COMPARED:
            least, most = torch.stack(self._norms).aminmax()
            self._end("gradients are clipped" if bool(most - least <= _ALIKE * most) and bool(most > 0) else None)

    def _end(self, finding: str | None) -> None:
        self._wanted = False  # the hook goes at the next step: torch is walking through the hooks just now
        if finding:
            warnings.warn(
                f"LipschitzRegularizer(every={self.every}): {finding}, so {self.every} times the penalty on one of "
                f"{self.every} steps is not the penalty on every step. Compare with every=1, or use an optimiser "
                "that is linear in the gradient, such as SGD.",
                CaptumLipschitzWarning,
                stacklevel=4,
            )


def _is_adaptive(optimizer: Optimizer) -> bool:
    """Adam and its kin have ``betas``, the others that divide by the gradient's size an ``eps``; SGD has neither."""
    return bool({"betas", "eps", "etas"} & set(optimizer.defaults))
