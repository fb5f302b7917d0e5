"""What the graph behind the logits says about whether a second derivative through it will be right."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz.errors import UnsupportedTrainingError

_COMPILED = (
    "a graph compiled from outside has no second derivative, or one that nobody compared; let the regularised module "
    "compile itself: module = RegularizedModule(model, regularizer); module.compile()"
)
_REFUSED = {
    "CompiledFunctionBackward": _COMPILED,
    "CheckpointFunctionBackward": (
        "the logits come through reentrant activation checkpointing, which torch.autograd.grad cannot pass; "
        "use torch.utils.checkpoint.checkpoint(..., use_reentrant=False)"
    ),
}
_FUSED_ATTENTION = (
    "the logits come through fused attention ({}), which has no second derivative; run the forward pass under "
    "torch.nn.attention.sdpa_kernel(SDPBackend.MATH), as RegularizedModule(model, regularizer) does"
)
_STATIC_GRAPH = (
    "the logits come out of DistributedDataParallel(static_graph=True), where a gradient taken through them starts the "
    "exchange between processes too early; take it inside: DistributedDataParallel(RegularizedModule(model, "
    "regularizer), static_graph=True)"
)
_FULLY_SHARDED = (
    "the logits come through fully_shard, which would free its parameters after the penalty's gradient; take it "
    "inside: fully_shard(RegularizedModule(model, regularizer)), whose layers may be sharded one by one too"
)

_compared = False


def nodes(output: Tensor) -> Iterator[Any]:
    """Every node of the autograd graph behind a tensor, each once."""
    pending = [output.grad_fn]
    seen = set()
    while pending:
        node = pending.pop()
        if node is not None and node not in seen:
            seen.add(node)
            yield node
            pending += [after for after, _ in node.next_functions]


def parameters(output: Tensor) -> list[nn.Parameter]:
    """The parameters that a backward pass from ``output`` would give a gradient to, in the order they are met."""
    found = [node.variable for node in nodes(output) if hasattr(node, "variable")]
    return [tensor for tensor in found if isinstance(tensor, nn.Parameter)]


def refuse_unsupported(logits: Tensor) -> None:
    """Raise where a gradient of the logits with respect to the inputs would fail, or pass and be wrong.

    Raises:
        UnsupportedTrainingError: names what stands in the way, and the way that works.
    """
    if torch.compiler.is_compiling():
        refuse_to_be_compiled()
        return  # the whole graph is traced, and its gradient was compared
    for node in nodes(logits):
        reason = _reason(node)
        if reason:
            raise UnsupportedTrainingError(f"logits: {reason}")


def refuse_to_be_compiled() -> None:
    """Raise in a graph that somebody else compiles, in which nobody would compare the penalty's gradient.

    Raises:
        UnsupportedTrainingError: names the way that works.
    """
    if torch.compiler.is_compiling() and not _compared:
        raise UnsupportedTrainingError(_COMPILED)


@contextmanager
def compared() -> Iterator[None]:
    """Inside, a graph is compiled whose penalty's gradient is compared with the uncompiled one."""
    global _compared  # noqa: PLW0603 (dynamo looks at it while it traces; a context variable it cannot read)
    before, _compared = _compared, True
    try:
        yield
    finally:
        _compared = before


def _reason(node: Any) -> str | None:
    name = node.name()
    if name in _REFUSED:
        return _REFUSED[name]
    if name.startswith("ScaledDotProduct") or "FlashAttn" in name:
        return _FUSED_ATTENTION.format(name)
    if name == "_DDPSinkBackward" and _is_static(node):
        return _STATIC_GRAPH
    if name == "RegisterPostBackwardFunctionBackward" and _would_reshard(node):
        return _FULLY_SHARDED
    return None


def _is_static(node: Any) -> bool:
    ddp = getattr(node, "ddp_weakref", lambda: None)()
    return ddp is not None and bool(ddp.static_graph)


def _would_reshard(node: Any) -> bool:
    group = getattr(node, "param_group", None)
    return group is None or group.reduce_grads or group.reshard_after_backward
