"""Which network somebody else's training step runs: its calls are watched, and its inputs are given a gradient."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import Self

from captum_lipschitz._hooks import Hooks
from captum_lipschitz.errors import UnsupportedTrainingError


class ForwardCall(NamedTuple):
    """One forward pass.

    Attributes:
        name: of what was run.
        network: the same pass as a function of its inputs alone, which returns logits.
        inputs: (N, ...), what it was given.
        logits: (N, C), what it returned.
        loss: what it returned as its loss beside them, if it did. In mixed precision a host may return copies of the
            logits, and then this alone tells whether the step's loss came from this pass.
        earlier: other networks watched that ran before it, of which its inputs may be the features.
    """

    name: str
    network: nn.Module
    inputs: Tensor
    logits: Tensor
    loss: Tensor | None
    earlier: tuple[str, ...]


class CalledNetwork(nn.Module):
    """A network as it was called: the other arguments stay, and of what it returns the logits are left.

    Args:
        network: what was called.
        args: by position; the inputs' place is ``place``, if it is a number.
        keywords: by name; the inputs' is ``place``, if it is a name.
        place: of the inputs.
    """

    def __init__(self, network: nn.Module, args: tuple[Any, ...], keywords: dict[str, Any], place: int | str) -> None:
        super().__init__()
        self.network = network
        self._args, self._keywords, self._place = args, keywords, place

    def forward(self, inputs: Tensor) -> Any:
        """Logits, (N, C), of inputs, (N, ...), as many as it was called with."""
        args, keywords = _with(self._args, self._keywords, self._place, inputs)
        output = self.network(*args, **keywords)
        return output if isinstance(output, Tensor) else _entry(output, "logits")


class ForwardCalls:
    """Within a ``with`` block, notes each forward pass from floating inputs to something of shape (N, C).

    Passes without gradients, and those within another one that is watched, do not count.

    Args:
        networks: what to watch, by name.
        differentiable: whether the inputs are to have a gradient.
        inputs: the tensor that is the inputs, where a network takes several; ``None`` for the only floating one.
    """

    def __init__(
        self, networks: Mapping[str, nn.Module], *, differentiable: bool, inputs: Tensor | None = None
    ) -> None:
        self.calls: list[ForwardCall] = []
        self._networks = networks
        self._differentiable = differentiable
        self._inputs = inputs
        self._within: list[tuple[nn.Module, Tensor, int | str]] = []
        self._ran: list[tuple[str, nn.Module]] = []
        self._hooks = Hooks()

    def __enter__(self) -> Self:
        try:
            for name, network in self._networks.items():
                self._hooks.before(network, self._before, with_kwargs=True)
                self._hooks.after(network, self._namer(name), with_kwargs=True)
        except BaseException:  # Ctrl-C too
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Watch no longer. May be called more than once."""
        self._hooks.remove()

    def _before(self, module: nn.Module, args: Any, keywords: dict[str, Any]) -> tuple[Any, dict[str, Any]] | None:
        if self._within or not torch.is_grad_enabled():
            return None
        place = self._place(module, args, keywords)
        if place is None:
            return None
        given: Tensor = args[place] if isinstance(place, int) else keywords[place]
        if not self._differentiable:
            self._within.append((module, given, place))
            return None
        leaf = given if given.requires_grad else given.detach().requires_grad_()
        self._within.append((module, leaf, place))
        # A copy is shown, as the network may change its inputs in place, which no leaf can be.
        return _with(args, keywords, place, leaf.clone())

    def _place(self, module: nn.Module, args: Any, keywords: dict[str, Any]) -> int | str | None:
        """Where the inputs are among the arguments."""
        given: list[tuple[int | str, Any]] = [*enumerate(args), *keywords.items()]
        floating = [(place, value) for place, value in given if _is_input(value) and place != "labels"]
        if self._inputs is not None:
            return next((place for place, value in floating if _same(value, self._inputs)), None)
        if len(floating) > 1:
            told = ", ".join(f"{place!r} of shape {tuple(value.shape)}" for place, value in floating)
            raise UnsupportedTrainingError(
                f"{type(module).__name__}: expected one floating input, with respect to which the penalty is taken, "
                f"got {told}; say which entry of the batch it is, inputs="
            )
        return floating[0][0] if floating else None

    def _namer(self, name: str) -> Any:
        def after(module: nn.Module, args: Any, keywords: dict[str, Any], output: Any) -> None:
            if self._within and self._within[-1][0] is not module:
                return
            earlier = tuple(dict.fromkeys(other for other, network in self._ran if not _related(network, module)))
            if any(True for _ in module.parameters()):
                self._ran.append((name, module))  # without gradients too, as a frozen body runs
            if not self._within:
                return
            _, inputs, place = self._within.pop()
            logits, loss = _entry(output, "logits"), _entry(output, "loss")
            if isinstance(output, Tensor):
                logits, loss = output, None
            if isinstance(logits, Tensor) and logits.dim() == 2 and logits.requires_grad and len(logits) == len(inputs):
                own = loss if isinstance(loss, Tensor) and loss.requires_grad else None
                plain = place == 0 and len(args) == 1 and not keywords and isinstance(output, Tensor)
                network = module if plain else CalledNetwork(module, args, keywords, place)
                self.calls.append(ForwardCall(name, network, inputs, logits, own, earlier))

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


def _with(
    args: tuple[Any, ...], keywords: dict[str, Any], place: int | str, value: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Arguments with another value at one place."""
    if isinstance(place, int):
        return (*args[:place], value, *args[place + 1 :]), keywords
    return args, {**keywords, place: value}


def _same(value: Tensor, other: Tensor) -> bool:
    """Whether two tensors are one, or one is a view of the whole of the other."""
    return value is other or (value.data_ptr() == other.data_ptr() and value.shape == other.shape)


def _related(network: nn.Module, other: nn.Module) -> bool:
    """Whether one of them is part of the other."""
    return any(part is other for part in network.modules()) or any(part is network for part in other.modules())
