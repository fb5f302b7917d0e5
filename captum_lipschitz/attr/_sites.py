"""Adding to a layer's activations while a model runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._hooks import Hooks
from captum_lipschitz._trace import undone
from captum_lipschitz.errors import InvalidInputError


class Sites:
    """Layers, and where their activations are changed.

    Args:
        layers: each runs once in a forward pass.
        counts: each layer's number of tensors.
        to_input: change what goes in instead of what comes out.
        device_ids: of ``DataParallel``, whose copies of a layer see parts of the batch.
    """

    def __init__(
        self, layers: Sequence[nn.Module], counts: Sequence[int], *, to_input: bool, device_ids: list[int] | None
    ) -> None:
        self._layers = layers
        self._counts = counts
        self._to_input = to_input
        self._device_ids = device_ids

    @contextmanager
    def changed_by(self, changes: tuple[Tensor, ...]) -> Iterator[None]:
        """Inside, forward passes add ``changes``, (N, ...) each, in the layers' order; no hook is left behind."""
        hooks = Hooks()
        with undone(hooks.remove):
            start = 0
            for layer, count in zip(self._layers, self._counts, strict=True):
                self._register(hooks, layer, changes[start : start + count])
                start += count
            yield

    def _register(self, hooks: Hooks, layer: nn.Module, changes: tuple[Tensor, ...]) -> None:
        parts = self._by_device(changes)
        seen: set[torch.device] = set()

        def add(values: Any) -> Any:
            tensors = values if isinstance(values, tuple) else (values,)
            device = tensors[0].device
            own = parts.get(device, changes)
            # A layer that runs again, on other shapes or on the same, has activations that these changes are not of.
            if device in seen or [a.shape for a in tensors] != [change.shape for change in own]:
                raise InvalidInputError(
                    f"layer: expected one that runs once in a forward pass, got {type(layer).__name__} that runs again"
                )
            seen.add(device)
            sums = tuple(a + change.to(device) for a, change in zip(tensors, own, strict=True))
            if hasattr(values, "_fields"):
                return type(values)(*sums)
            return sums if isinstance(values, tuple) else sums[0]

        if self._to_input:
            hooks.before(layer, lambda _, values: add(values))
        else:
            hooks.after(layer, lambda _, __, values: add(values))

    def _by_device(self, changes: tuple[Tensor, ...]) -> dict[torch.device, tuple[Tensor, ...]]:
        """Each device's rows, where the batch is cut as ``DataParallel`` cuts it."""
        if not self._device_ids or len(self._device_ids) < 2 or not changes[0].is_cuda:
            return {}
        scattered = nn.parallel.scatter(changes, self._device_ids)
        return {own[0].device: tuple(own) for own in scattered}


@contextmanager
def seen_to_run(layers: Sequence[nn.Module], *, to_input: bool) -> Iterator[None]:
    """Inside, a forward pass of a model; afterwards every layer has run, on tensors or tuples of them.

    Raises:
        InvalidInputError: one has not, or with something else.
    """
    ran: set[nn.Module] = set()

    def look(layer: nn.Module, values: Any) -> None:
        tensors = values if isinstance(values, tuple) else (values,)
        if not tensors or not all(isinstance(value, Tensor) for value in tensors):
            got = ", ".join(type(value).__name__ for value in tensors) or "nothing (keyword arguments alone)"
            way = "takes" if to_input else "gives"
            raise InvalidInputError(
                f"layer: expected one that {way} a tensor or a tuple of tensors, got {type(layer).__name__} with {got}"
            )
        ran.add(layer)

    def checked() -> None:
        for layer in layers:
            if layer not in ran:
                raise InvalidInputError(
                    f"layer: expected one that runs in a forward pass, got {type(layer).__name__}, which does not"
                )

    hooks = Hooks()
    with undone(hooks.remove):
        for layer in layers:
            if to_input:
                hooks.before(layer, lambda _, values, own=layer: look(own, values))
            else:
                hooks.after(layer, lambda _, __, values, own=layer: look(own, values))
        try:
            yield
        except (AssertionError, KeyError):  # Captum's, where a layer did not run
            checked()
            raise
        checked()
