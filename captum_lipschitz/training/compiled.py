"""The penalty in a compiled graph, compared with the uncompiled one before it is trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz._model import no_trace
from captum_lipschitz.errors import UnsupportedTrainingError
from captum_lipschitz.training.graph import compared
from captum_lipschitz.training.sharded import is_sharded

_TOLERANCE = 0.02
"""Largest relative difference of two gradients in float32, whose sums are ordered differently; a lost second derivative
is of order 1."""
_TOLERANCE_LOW = 0.2  # in half precision

Form = Callable[..., tuple[Tensor, Tensor]]
"""``form(module, leaf, labels, draws, arguments, keywords)`` to logits and penalty."""


class CompiledPenalty:
    """A compiled ``form``, verified at its first call.

    Args:
        module: the regularised module, with its network as ``module.model``.
        form: what to compile.
        verify: whether the first call compares the penalty's parameter gradient with the uncompiled one.
        options: for ``torch.compile``.

    Raises:
        UnsupportedTrainingError: torch cannot trace gradients, or layers of the model are sharded one by one.
    """

    def __init__(self, module: nn.Module, form: Form, *, verify: bool, options: dict[str, Any]) -> None:
        import torch._dynamo.config  # half a second that only compiled training needs

        if not hasattr(torch._dynamo.config, "trace_autograd_ops"):  # noqa: SLF001 (dynamo's public settings)
            raise UnsupportedTrainingError(
                f"compile: torch {torch.__version__} cannot trace torch.autograd.grad; upgrade it, or train uncompiled"
            )
        if any(is_sharded(layer) for layer in module.get_submodule("model").modules()):
            raise UnsupportedTrainingError(
                "compile: layers under fully_shard interrupt the graph, in which the penalty's gradient must lie; "
                "shard the root alone, fully_shard(RegularizedModule(model, regularizer)), or train uncompiled"
            )
        self._form = form
        self._compiled = torch.compile(form, **options)
        self._verified = not verify

    def __call__(self, module: nn.Module, *arguments: Any) -> tuple[Tensor, Tensor]:
        """As ``form``."""
        if not self._verified:
            self._verify(module, *arguments)
            self._verified = True
        with _tracing_gradients():
            return self._compiled(module, *arguments)

    def _verify(self, module: nn.Module, leaf: Tensor, *arguments: Any) -> None:
        trained = [p for p in module.parameters() if p.requires_grad]
        with no_trace(module, leaf, evaluation=False), _without_dropout(module):
            expected = _gradient(self._form(module, leaf, *arguments)[1], trained)
            with _tracing_gradients():
                found = _gradient(self._compiled(module, leaf, *arguments)[1], trained)
        low = torch.is_autocast_enabled(leaf.device.type) or leaf.dtype in (torch.float16, torch.bfloat16)
        error = _relative_error(found, expected)
        if not error <= (_TOLERANCE_LOW if low else _TOLERANCE):
            raise UnsupportedTrainingError(
                f"compile: the compiled penalty's gradient differs from the uncompiled one by {error:.0%}. Either "
                "a custom torch.autograd.Function in the model loses its second derivative when compiled: write it in "
                "torch's own operations (as HalfHuberReLU is), or train uncompiled. Or the model is random in other "
                "ways than by dropout modules: then compile(verify=False) goes on without this comparison."
            )


def _gradient(penalty: Tensor, trained: Sequence[Tensor]) -> list[Tensor]:
    if not penalty.requires_grad:
        return [torch.zeros_like(p) for p in trained]
    return list(torch.autograd.grad(penalty, trained, allow_unused=True, materialize_grads=True))


def _relative_error(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """The largest of the parameters' relative errors, those with next to no gradient measured by the whole one."""
    sizes = torch.stack([e.float().norm() for e in expected])
    errors = torch.stack([(f.float() - e.float()).norm() for f, e in zip(found, expected, strict=True)])
    least = 0.01 * sizes.norm()
    return float((errors / torch.maximum(sizes, least).clamp(min=torch.finfo(torch.float32).tiny)).max())


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
