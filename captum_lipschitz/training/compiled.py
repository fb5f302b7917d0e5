"""The penalty in a compiled graph, compared with the uncompiled one before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz.errors import UnsupportedTrainingError
from captum_lipschitz.training.graph import compared
from captum_lipschitz.training.processes import number_of_processes
from captum_lipschitz.training.sharded import is_sharded

_TOLERANCE = 0.02
"""Largest relative difference of two gradients in float32, whose sums are ordered differently; a lost second derivative
is of order 1."""
_TOLERANCE_LOW = 0.2  # in half precision

Form = Callable[..., tuple[Tensor, Tensor]]
"""``form(module, leaf, labels, draws, arguments, keywords)`` to logits and penalty."""


class CompiledPenalty:
    """A compiled ``form``, verified at its first call with a gradient, for each precision and each set of parameters.

    Args:
        module: the regularised module, with its network as ``module.model``.
        form: what to compile.
        verify: whether the first call compares the penalty's parameter gradient with the uncompiled one.
        options: for ``torch.compile``.

    Raises:
        UnsupportedTrainingError: torch is older than 2.11 and cannot trace gradients, or layers of the model are
            sharded one by one; in a call: the model interrupts the graph, or the gradients differ.
    """

    def __init__(self, module: nn.Module, form: Form, *, verify: bool, options: dict[str, Any]) -> None:
        import torch._dynamo.config  # half a second that only compiled training needs

        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):  # noqa: SLF001 (dynamo's public settings)
            raise UnsupportedTrainingError(
                "compile: expected torch 2.11 or newer, which can trace torch.autograd.grad, got "
                f"{torch.__version__}; upgrade it, or train uncompiled"
            )
        if any(is_sharded(layer) for layer in module.get_submodule("model").modules()):
            raise UnsupportedTrainingError(
                "compile: layers under fully_shard interrupt the graph, in which the penalty's gradient must lie; "
                "shard the root alone, fully_shard(RegularizedModule(model, regularizer)), or train uncompiled"
            )
        self._form = form
        self._compiled = torch.compile(form, **{"fullgraph": True, **options})
        self._verify = verify
        self._verified: set[object] = set()

    def __call__(self, module: nn.Module, leaf: Tensor, *arguments: Any) -> tuple[Tensor, Tensor]:
        """As ``form``."""
        setting = _setting(module, leaf)
        if self._verify and setting not in self._verified and self._compare(module, leaf, *arguments):
            self._verified.add(setting)
        return self._run(module, leaf, *arguments)

    def _run(self, *arguments: Any) -> tuple[Tensor, Tensor]:
        try:
            with _tracing_gradients():
                return self._compiled(*arguments)
        except torch._dynamo.exc.Unsupported as error:  # noqa: SLF001 (dynamo's public exceptions)
            raise UnsupportedTrainingError(
                "compile: the model interrupts the graph, in which the penalty's gradient must lie whole; remove what "
                f"torch names below, or train uncompiled. {error}"
            ) from error

    def _compare(self, module: nn.Module, leaf: Tensor, *arguments: Any) -> bool:
        """Whether there was a gradient to compare; raises where it differs."""
        trained = [p for p in module.parameters() if p.requires_grad]
        with settled(), no_trace(module, leaf, evaluation=False), _without_dropout(module):
            plain = self._form(module, leaf, *arguments)[1]
            # fp16 would round the gradient of a mean over so many pixels to zero, or overflow by that of a sum.
            for scale in (leaf.numel(), leaf.numel() ** 0.5, 1.0):
                expected = _gradient(plain * scale, trained)
                if all(bool(g.isfinite().all()) for g in expected):
                    break
            found = _gradient(self._run(module, leaf, *arguments)[1] * scale, trained)
        low = torch.is_autocast_enabled(leaf.device.type) or leaf.dtype in (torch.float16, torch.bfloat16)
        error = _in_all_processes(_whole_error(found, expected) if low else _relative_error(found, expected), leaf)
        if not error <= (_TOLERANCE_LOW if low else _TOLERANCE):
            raise UnsupportedTrainingError(
                f"compile: the compiled penalty's gradient differs from the uncompiled one by {error:.0%}. Either "
                "a custom torch.autograd.Function in the model loses its second derivative when compiled: write it in "
                "torch's own operations (as HalfHuberReLU is), or train uncompiled. Or the model is random in other "
                "ways than by dropout modules: then compile(verify=False) goes on without this comparison."
            )
        return any(bool(g.any()) for g in expected)


def _setting(module: nn.Module, leaf: Tensor) -> object:
    """What has a graph of its own, and so a comparison of its own; shapes aside, which change nothing about it."""
    kind = leaf.device.type
    precision = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else None
    return precision, leaf.dtype, tuple(p.requires_grad for p in module.parameters())


def _in_all_processes(error: float, leaf: Tensor) -> float:
    """The largest error of all processes, so that all of them go on or none does."""
    if number_of_processes() == 1:
        return error
    largest = torch.tensor(error, device=leaf.device)
    torch.distributed.all_reduce(largest, torch.distributed.ReduceOp.MAX)
    return float(largest)


def _gradient(penalty: Tensor, trained: Sequence[Tensor]) -> list[Tensor]:
    if not penalty.requires_grad:
        return [torch.zeros_like(p) for p in trained]
    found = torch.autograd.grad(penalty, trained, retain_graph=True, allow_unused=True, materialize_grads=True)
    return [gradient.float() for gradient in found]


def _relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest of the parameters' relative errors, those with next to no gradient measured by the whole one."""
    sizes = torch.stack([e.norm() for e in expected])
    errors = torch.stack([(f - e).norm() for f, e in zip(found, expected, strict=True)])
    least = 0.01 * sizes.norm()
    return float((errors / torch.maximum(sizes, least).clamp(min=torch.finfo(torch.float32).tiny)).max())


def _whole_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The relative error of all parameters together: single ones may err by much in half precision."""
    size = torch.stack([e.norm() for e in expected]).norm().clamp(min=torch.finfo(torch.float32).tiny)
    return float(torch.stack([(f - e).norm() for f, e in zip(found, expected, strict=True)]).norm() / size)


@contextmanager
def _tracing_gradients() -> Iterator[None]:
    """Dynamo traces torch.autograd.grad, and does not cut the graph for DistributedDataParallel's buckets."""
    settings = torch._dynamo.config.patch(trace_autograd_ops=True, optimize_ddp=False)  # noqa: SLF001 (public settings)
    with settings, compared():
        yield


@contextmanager
def _without_dropout(module: nn.Module) -> Iterator[None]:
    """Modules that drop at random do so differently when compiled; ``no_trace`` puts their mode back."""
    for layer in module.modules():
        if isinstance(layer, nn.modules.dropout._DropoutNd) or type(layer).__name__ in ("DropPath", "StochasticDepth"):  # noqa: SLF001
            layer.training = False
    yield
