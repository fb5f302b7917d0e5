"""A model together with its penalty: what DistributedDataParallel, fully_shard and torch.compile have to be given."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from captum_lipschitz._trace import settled
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training.attention import plain_attention
from captum_lipschitz.training.compiled import CompiledPenalty
from captum_lipschitz.training.graph import refuse_to_be_compiled
from captum_lipschitz.training.penalty import PenaltyDraws, Positions, to_device
from captum_lipschitz.training.regularizer import LipschitzRegularizer
from captum_lipschitz.training.sharded import parameters_kept, trained_parameters

_INNER = "model."


class RegularizedOutput(NamedTuple):
    """What a ``RegularizedModule`` returns.

    Attributes:
        logits: (N, C), the model's.
        penalty: a scalar; 0 in evaluation mode, without gradients, and on steps that ``every`` skips.
    """

    logits: Tensor
    penalty: Tensor


class RegularizedModule(nn.Module):
    """A model whose forward pass returns its logits and their Lipschitz penalty.

    The penalty's gradient is taken within the forward pass, where wrappers can see it. So the order is

        ``module = DistributedDataParallel(RegularizedModule(model, regularizer))``,

    also with ``static_graph`` and ``find_unused_parameters``, or ``fully_shard`` on this module and, if wanted, on
    layers of the model before. For compiled training call ``module.compile()``, before it is wrapped. ``state_dict``,
    ``load_state_dict`` and attributes are the model's own, also where this module is part of another, so the model's
    checkpoints do not change; ``named_parameters`` too, of this module itself. Fused attention, which has no second
    derivative, is replaced by its mathematical form while a penalty is formed; where activation checkpointing computes
    it again in the backward pass, call ``backward`` under ``sdpa_kernel(SDPBackend.MATH)``.

    Args:
        model: takes inputs (N, ...) as its first argument and returns logits (N, C).
        regularizer: forms the penalty, and afterwards the loss: ``regularizer.combine(penalty, task_loss=...)``.
        sub_batch: share of each batch, in (0, 1], that the penalty is formed on: a random part, for less cost.
            Parts pass through the model one after the other, so the penalty is unbiased where images do not touch each
            other; BatchNorm in train mode normalises each part by itself, and moves its averages twice. It takes no
            single image, so where a part would be one the whole batch is penalised.

    Raises:
        InvalidInputError, InvalidTypeError: a model, a regularizer or a share that cannot be used.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Linear(4, 16), torch.nn.LayerNorm(16), torch.nn.Linear(16, 3))
        >>> regularizer = LipschitzRegularizer(strength=0.1)
        >>> module = RegularizedModule(model, regularizer)
        >>> labels = torch.zeros(8, dtype=torch.long)
        >>> logits, penalty = module(torch.rand(8, 4), labels)
        >>> task_loss = torch.nn.functional.cross_entropy(logits, labels)
        >>> regularizer.combine(penalty, task_loss=task_loss).loss.backward()

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(self, model: nn.Module, regularizer: LipschitzRegularizer, *, sub_batch: float = 1.0) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        if not isinstance(regularizer, LipschitzRegularizer):
            raise InvalidTypeError(f"regularizer: expected a LipschitzRegularizer, got {type(regularizer).__name__}")
        if not 0 < sub_batch <= 1:
            raise InvalidInputError(f"sub_batch: expected a share in (0, 1], got {sub_batch}")
        self.model = model
        self.regularizer = regularizer
        self.sub_batch = sub_batch
        self._compiled: CompiledPenalty | None = None
        self._plain: Callable[..., Any] | None = None
        self.register_state_dict_post_hook(_hide_prefix)  # type: ignore[no-untyped-call]
        self.register_load_state_dict_pre_hook(_add_prefix)  # type: ignore[no-untyped-call]
        self.train(model.training)

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "model":
                raise
            return getattr(self.model, name)

    def forward(
        self,
        inputs: Tensor,
        labels: Tensor | None = None,
        *arguments: Any,
        draws: Sequence[PenaltyDraws | Positions] | None = None,
        **keywords: Any,
    ) -> RegularizedOutput:
        """Run the model, and where it trains form the penalty.

        Args:
            inputs: (N, ...), floating.
            labels: as ``LipschitzRegularizer`` takes them; needed only where a penalty is formed.
            arguments: further ones for the model, by position.
            draws: what to differentiate, in place of the regularizer's own draws; with ``sub_batch`` for that part.
            keywords: further ones for the model.

        Returns:
            Logits, (N, C), and the penalty, a scalar, as a ``RegularizedOutput``.

        Raises:
            InvalidInputError, InvalidTypeError, ModelOutputError, DisconnectedModelError: as ``lipschitz_penalty``.
        """
        refuse_to_be_compiled()
        if not (self.training and torch.is_grad_enabled() and self.regularizer.due):
            logits = self._unpenalised()(inputs, *arguments, **keywords)
            return RegularizedOutput(logits, torch.zeros((), device=inputs.device))
        if labels is None:
            raise InvalidInputError("labels: expected the batch's labels, which the penalty needs, got None")
        if self.regularizer.wants_parameters():
            self.regularizer.observe(trained_parameters(self))
        if self.sub_batch == 1:
            return self._penalised(inputs, labels, draws, *arguments, **keywords)
        return self._partly_penalised(inputs, labels, draws, *arguments, **keywords)

    def compile(self, *, verify: bool = True, **options: Any) -> None:
        """Compile the model together with its penalty, in place, where ``torch.compile(module)`` is refused.

        A custom ``torch.autograd.Function`` loses its second derivative in a compiled graph without a word. So at the
        first step the penalty's parameter gradient is computed uncompiled as well and compared.

        Args:
            verify: whether to compare. Randomness other than dropout, which is switched off meanwhile, has to be left
                unverified.
            options: for ``torch.compile``.

        Raises:
            UnsupportedTrainingError: torch is older than 2.11 and cannot trace gradients, or layers are sharded one by
                one; at the first step: the model interrupts the graph, or the compiled gradient differs.
        """
        self._compiled = CompiledPenalty(self, _form, verify=verify, options=options)
        # Not by setattr, which would make it one more submodule, with the model's parameters a second time.
        self.__dict__["_plain"] = torch.compile(self.model, **options)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_compiled": None, "_plain": None}  # a copy is not compiled

    def load_state_dict(self, state_dict: Mapping[str, Any], *arguments: Any, **keywords: Any) -> Any:
        """Load the model's state, by the model's own names."""
        return self.model.load_state_dict(state_dict, *arguments, **keywords)

    def _penalised(
        self,
        inputs: Tensor,
        labels: Tensor,
        draws: Sequence[PenaltyDraws | Positions] | None,
        *arguments: Any,
        **keywords: Any,
    ) -> RegularizedOutput:
        leaf = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
        before = self.regularizer.generator.get_state()
        form = self._compiled or _form
        try:
            with settled(), plain_attention():
                if draws is None:
                    draws = self.regularizer.draw(len(inputs), inputs.device)
                logits, penalty = form(self, leaf, labels, draws, arguments, keywords)
            return RegularizedOutput(logits, penalty * self.regularizer.resolution_factor(inputs))
        except BaseException:  # Ctrl-C too
            self.regularizer.generator.set_state(before)
            raise

    def _partly_penalised(
        self, inputs: Tensor, labels: Tensor, draws: Any, *arguments: Any, **keywords: Any
    ) -> RegularizedOutput:
        if arguments or keywords:
            raise InvalidInputError("sub_batch: expected a model that takes nothing but inputs, got further arguments")
        count = max(1, round(self.sub_batch * len(inputs)))
        if count >= len(inputs) or (1 in (count, len(inputs) - count) and self._takes_batch_statistics()):
            return self._penalised(inputs, labels, draws)
        generator = self.regularizer.generator
        before = generator.get_state()
        try:
            order = torch.randperm(len(inputs), generator=generator, device=generator.device)
            order = to_device(order, inputs.device)
            part = self._penalised(inputs[order[:count]], labels[order[:count]], draws)
            rest = self._unpenalised()(inputs[order[count:]])
            return RegularizedOutput(torch.cat([part.logits, rest])[order.argsort()], part.penalty)
        except BaseException:
            generator.set_state(before)
            raise

    def _takes_batch_statistics(self) -> bool:
        """Whether a single image may be refused, as BatchNorm in train mode does."""
        return any(isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.training for layer in self.modules())  # noqa: SLF001

    def _unpenalised(self) -> Callable[..., Any]:
        return self.model if self._plain is None else self._plain  # not "or": a compiled module asks for its length

    def named_parameters(self, *arguments: Any, **keywords: Any) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's parameters by the model's own names."""
        yield from _renamed(super().named_parameters, *arguments, **keywords)

    def named_buffers(self, *arguments: Any, **keywords: Any) -> Iterator[tuple[str, Tensor]]:
        """The model's buffers by the model's own names."""
        yield from _renamed(super().named_buffers, *arguments, **keywords)


def _form(
    module: RegularizedModule,
    leaf: Tensor,
    labels: Tensor,
    draws: Sequence[PenaltyDraws | Positions],
    arguments: tuple[Any, ...],
    keywords: dict[str, Any],
) -> tuple[Tensor, Tensor]:
    """Logits and penalty of prepared inputs: the part that can be compiled."""
    # A copy, as a model may change its inputs in place, which no leaf can be.
    logits = module.model(leaf.clone(), *arguments, **keywords)
    if not isinstance(logits, Tensor) or logits.dim() != 2:
        raise InvalidTypeError(f"model: expected logits of shape (N, C), got {getattr(logits, 'shape', logits)}")
    chosen = [one.of(logits.shape[1]) if isinstance(one, Positions) else one for one in draws]
    with parameters_kept(module):
        return logits, module.regularizer.form_penalty(logits, leaf, labels, chosen)


def _renamed(named: Callable[..., Iterator[tuple[str, Any]]], prefix: str = "", *rest: Any, **keywords: Any) -> Any:
    start = f"{prefix}." if prefix else ""
    for name, value in named(prefix, *rest, **keywords):
        yield start + name.removeprefix(start).removeprefix(_INNER), value


def _hide_prefix(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Give the wrapped model's entries the names that they have without the wrapper."""
    inner = prefix + _INNER
    entries = [(key[len(inner) :], state.pop(key)) for key in list(state) if key.startswith(inner)]
    state.update((prefix + rest, value) for rest, value in entries)
    versions = getattr(state, "_metadata", {})
    for key in [key for key in versions if (key + ".").startswith(inner)]:
        # Under both names: loaded into the wrapper within another module, torch looks for the longer one.
        versions[(prefix + key[len(inner) :]).rstrip(".")] = versions[key]


def _add_prefix(_: nn.Module, state: dict[str, Any], prefix: str, *__: Any) -> None:
    """Undo ``_hide_prefix`` on the copy of the state that is being loaded."""
    entries = [(key[len(prefix) :], state.pop(key)) for key in list(state) if key.startswith(prefix)]
    state.update((prefix + _INNER + rest, value) for rest, value in entries)
