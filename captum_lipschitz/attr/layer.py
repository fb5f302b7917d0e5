"""Adversarial explanations of a layer: the change of its activations that the model takes for a class."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from captum._utils.common import _format_output
from captum._utils.gradient import _forward_layer_eval
from captum.attr._utils.attribution import LayerAttribution
from captum.log import log_usage
from torch import Tensor, nn

from captum_lipschitz._hooks import hooks_kept
from captum_lipschitz._memory import in_chunks, takes_batch_statistics
from captum_lipschitz._trace import no_trace, outside_inference_mode, settled
from captum_lipschitz.attr._change import (
    ChangeAttribution,
    Subject,
    TensorOrTensors,
    evidence_for,
    flat_tensors,
    formatted,
    sign_of,
)
from captum_lipschitz.attr._packing import Packed, own, take
from captum_lipschitz.attr._sites import Sites, seen_to_run
from captum_lipschitz.attr._walk import Walk
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm


class LayerAdversarialAttribution(LayerAttribution, ChangeAttribution):
    """What would have to be added to a layer's activations for the model to see more (or less) of a class.

    As ``AdversarialAttribution``, in the space of a layer: of the tokens' embeddings, whose indices have no gradient,
    or of the channels of a convolution, which mean more than pixels do.

    Args:
        forward_func: a model or any function of the inputs that runs the layer once. It is called in the mode (train or
            eval) it is in; call ``model.eval()`` first.
        layer: a submodule; or a list of them, whose activations then share one budget.
        device_ids: for ``DataParallel`` models behind a function: their device ids.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Embedding(50, 8), torch.nn.Flatten(), torch.nn.Linear(5 * 8, 2))
        >>> tokens = torch.tensor([[3, 1, 4, 1, 5]])
        >>> change = LayerAdversarialAttribution(model, model[0]).attribute(tokens, target=1)
        >>> change.shape
        torch.Size([1, 5, 8])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, "Adversarial explanations" (of inputs).
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
    ) -> None:
        LayerAttribution.__init__(self, forward_func, layer, device_ids)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        attribute_to_layer_input: bool = False,
        rho: float | tuple[float, ...] = 0.1,
        n_steps: int = 35,
        overshoot: float = 5.0,
        momentum: float = 0.0,
        direction: Literal["toward", "away"] = "toward",
        norm: Norm | str = "rmse",
        scale: Any = None,
        bounds: Bounds | tuple[Any, Any] | None = None,
        mask: Any = None,
        objective: Literal["auto", "log_odds", "multi_label", "regression", "output"] = "auto",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Change every example's activations by about ``rho`` toward (or away from) the target.

        It costs a forward pass, which tells the activations' shapes, and ``n_steps`` forward and backward passes.

        Args:
            inputs: tensor (N, ...) of any dtype, or a tuple of them; they stay as they are.
            target: the output to explain, in any form Captum accepts; ``None`` for one output per example.
            additional_forward_args: passed to ``forward_func`` after the inputs.
            attribute_to_layer_input: change what goes into the layer instead of what comes out.
            rho: size of the change in the norm's units, positive, in the activations' own units: one budget over all
                activations; or a tuple of one for each tensor that the layers put out.
            n_steps: gradient steps, at least 1.
            overshoot: total length of the path over ``rho``.
            momentum: of the direction, in [0, 1).
            direction: ``"toward"`` more evidence for the target or ``"away"`` from it.
            norm: ``"rmse"`` (the paper's), ``"l2"``, ``"linf"`` or a ``Norm`` object.
            scale: broadcast to the activations (a tuple: one for each tensor); ``rho`` is then in units of it.
            bounds: ``(lower, upper)`` that activations plus change stay in.
            mask: broadcast to the activations; only where it is non-zero are they changed.
            objective: see ``AdversarialAttribution.attribute``.
            internal_batch_size: examples run at once; ``None`` for all. Batches are cut by index. Where memory runs
                out they are halved, with one warning, unless BatchNorm is in train mode.
            show_progress: a progress bar over all steps.
            return_convergence_delta: return ``(attributions, delta)``.

        Returns:
            The change, shaped as the activations: a tensor; a tuple for a layer of several outputs; a list of those for
            a list of layers. With ``return_convergence_delta`` also the achieved size minus ``rho``, shape (N,).

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used, a layer that is not run exactly once
                in a forward pass, or whose activations are not tensors of one row per example.
            ModelOutputError, DisconnectedModelError: for a model without finite outputs or without a gradient.

        Warns:
            CaptumLipschitzWarning: the gradient of some examples is zero, or became NaN or infinite on the way.
        """
        return self._explain(
            inputs,
            additional_forward_args,
            Walk(rho, n_steps, overshoot, momentum, sign=sign_of(direction)),
            evidence_for(objective),
            attribute_to_layer_input=attribute_to_layer_input,
            target=target,
            norm=norm,
            scale=scale,
            bounds=bounds,
            mask=mask,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
            return_convergence_delta=return_convergence_delta,
        )

    def compute_log_odds_change(
        self,
        attributions: Any,
        inputs: TensorOrTensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        attribute_to_layer_input: bool = False,
        objective: str = "auto",
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """How far the attributions, added to the activations, move the target's log-odds: after minus before, (N,).

        The arguments are those of ``attribute``; the answer is in nats.

        Args:
            attributions: what was returned for these inputs, a tuple for several.
            inputs: as given to ``attribute``.
            target: likewise.
            additional_forward_args: likewise.
            attribute_to_layer_input: likewise.
            objective: likewise.
            internal_batch_size: examples run at once; ``None`` for all.

        Returns:
            (N,), in nats.
        """
        return self._log_odds_change(
            attributions,
            inputs,
            target,
            additional_forward_args,
            objective=objective,
            internal_batch_size=internal_batch_size,
            attribute_to_layer_input=attribute_to_layer_input,
        )

    def _subject(
        self,
        inputs: TensorOrTensors,
        additional_forward_args: Any,
        *,
        internal_batch_size: int | None,
        attribute_to_layer_input: bool = False,
        bounds: Any = None,
        **rest: Any,
    ) -> Subject:
        """The activations: what is added to them, at first nothing."""
        layers = self.layer if isinstance(self.layer, list) else [self.layer]
        if len({id(layer) for layer in layers}) != len(layers):
            raise InvalidInputError("layer: expected different layers, got one of them twice")
        tensors, arguments = formatted(inputs, additional_forward_args)
        given = (*tensors, *arguments)
        by_layer = self._activations(tensors, arguments, internal_batch_size, to_input=attribute_to_layer_input)
        counts = [len(activations) for activations in by_layer]
        flat = flat_tensors(by_layer)
        if any(tensor.dim() == 0 or len(tensor) != len(tensors[0]) for tensor in flat):
            shapes = [tuple(tensor.shape) for tensor in flat]
            raise InvalidInputError(
                f"layer: expected activations of one row for each of {len(tensors[0])} examples, got {shapes}"
            )
        with outside_inference_mode():
            packed = Packed.of(flat, arguments=given, bounds=bounds, name="activations", **rest)
            room = None if packed.bounds is None else Bounds(*(limit - packed.features for limit in packed.bounds))
            packed = replace(packed, features=torch.zeros_like(packed.features), bounds=room)
        device_ids = getattr(self.forward_func, "device_ids", None) if self.device_ids is None else self.device_ids
        sites = Sites(layers, counts, to_input=attribute_to_layer_input, device_ids=device_ids)

        def run(batch: Packed, features: Tensor) -> object:
            # The model may change its inputs in place, and is run on them again.
            fresh = (argument.clone() for argument in batch.arguments[: len(tensors)])
            with sites.changed_by(batch.unpack(features)):
                return self.forward_func(*fresh, *batch.arguments[len(tensors) :])

        return Subject(packed, run, partial(_by_layer, counts, many=isinstance(self.layer, list)))

    def _activations(
        self, inputs: tuple[Tensor, ...], arguments: tuple[Any, ...], size: int | None, *, to_input: bool
    ) -> list[tuple[Tensor, ...]]:
        """Each layer's activations on all examples, batch after batch."""
        rows, layers = len(inputs[0]), self.layer if isinstance(self.layer, list) else [self.layer]

        def run(start: int, stop: int) -> list[tuple[Tensor, ...]]:
            index = slice(start, stop)
            with hooks_kept(*layers), seen_to_run(layers, to_input=to_input):
                found = _forward_layer_eval(
                    self.forward_func,
                    tuple(take(tensor, index, rows).clone() for tensor in inputs),
                    self.layer,
                    tuple(own(take(argument, index, rows)) for argument in arguments),
                    device_ids=self.device_ids,
                    attribute_to_layer_input=to_input,
                )
            return found if isinstance(self.layer, list) else [found]

        with settled(), no_trace(self.forward_func, inputs[0], evaluation=False):
            batches = in_chunks(
                run,
                rows,
                what="attribute",
                device=inputs[0].device,
                at_once=size,
                halve=not takes_batch_statistics(self.forward_func),
            )
        return [
            tuple(torch.cat(parts) for parts in zip(*(batch[i] for batch in batches), strict=True))
            for i in range(len(batches[0]))
        ]


def _by_layer(counts: list[int], tensors: tuple[Tensor, ...], *, many: bool) -> Any:
    """A tensor or tuple for each layer, in a list where a list was given."""
    parts = iter(tensors)
    found = [_format_output(count > 1, tuple(next(parts) for _ in range(count))) for count in counts]
    return found if many else found[0]
