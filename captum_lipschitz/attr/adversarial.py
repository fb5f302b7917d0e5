"""Adversarial explanations: the attack itself, of a given size, as an attribution."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import torch
from captum._utils.common import _format_additional_forward_args, _format_output, _format_tensor_into_tuples, _is_tuple
from captum.attr._utils.attribution import GradientAttribution
from captum.log import log_usage
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._model import gradient, no_trace
from captum_lipschitz.attacks.paper import check_path, shrinking_steps
from captum_lipschitz.attr._packing import Packed
from captum_lipschitz.attr._targets import OBJECTIVES, evidence
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm, as_norm

TensorOrTensors: TypeAlias = Tensor | tuple[Tensor, ...]


class AdversarialAttribution(GradientAttribution):
    """What would have to be added to the inputs for the model to see more (or less) of a class.

    The attribution is a perturbation of size about ``rho``: the image plus the perturbation shows what the model takes
    for the class. On a robust network it is made of the features that people see as well; on a fragile one it looks
    like noise, which is the evidence that the network decides by it.

    Args:
        forward_func: a model or any function of the inputs, as for Captum's other methods. It is called in the mode
            (train or eval) it is in; call ``model.eval()`` first.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
        >>> images = torch.rand(2, 3, 2, 2)
        >>> attributions = AdversarialAttribution(model).attribute(images, target=3, rho=0.1)
        >>> attributions.shape
        torch.Size([2, 3, 2, 2])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, "Adversarial explanations" (g_explain; the image plus it is
        g_explain+).
    """

    def __init__(self, forward_func: Callable[..., Any]) -> None:
        super().__init__(forward_func)

    @log_usage(part_of_slo=True)
    def attribute(
        self,
        inputs: TensorOrTensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        rho: float = 0.1,
        n_steps: int = 35,
        overshoot: float = 5.0,
        momentum: float = 0.0,
        direction: Literal["toward", "away"] = "toward",
        norm: Norm | str = "rmse",
        scale: Any = None,
        bounds: Bounds | tuple[float, float] | None = None,
        mask: Any = None,
        objective: Literal["auto", "log_odds", "multi_label", "output"] = "auto",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Perturb every example by about ``rho`` toward (or away from) the target.

        Args:
            inputs: floating tensor (N, ...), or a tuple of them; one budget then covers all their features.
            target: the output to explain, in any form Captum accepts; ``None`` for one output per example.
            additional_forward_args: passed to ``forward_func`` after the inputs.
            rho: size of the perturbation in the norm's units, positive. 0.1 suits RGB images in [0, 1].
            n_steps: gradient steps, at least 1.
            overshoot: total length of the path over ``rho``; what exceeds rho is spent on turning corners.
            momentum: of the direction, in [0, 1).
            direction: ``"toward"`` more evidence for the target or ``"away"`` from it.
            norm: ``"rmse"`` (the paper's), ``"l2"``, ``"linf"`` or a ``Norm`` object.
            scale: broadcast to the inputs (a tuple: one for each); ``rho`` is then in units of each feature's scale.
            bounds: ``(lower, upper)`` that inputs plus perturbation stay in; ``None``, as in the paper, for none.
            mask: broadcast to the inputs; only where it is non-zero are inputs perturbed.
            objective: what is followed, see ``captum_lipschitz.attr._targets.evidence``. ``"auto"`` is the log-odds
                of the target where the output has shape (N, C), otherwise the selected output.
            internal_batch_size: examples run at once; ``None`` for all. Chunks are cut by index.
            show_progress: a progress bar over all steps.
            return_convergence_delta: return ``(attributions, delta)``.

        Returns:
            The perturbation(s), shaped as ``inputs``; with ``return_convergence_delta`` also the achieved size minus
            ``rho``, shape (N,): about 0, clearly negative where the gradient vanished or the path only zigzagged.

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used.
            ModelOutputError, DisconnectedModelError: for a model without finite outputs or without a gradient.
        """
        settings = _Settings(rho, n_steps, overshoot, momentum, direction, objective)
        if internal_batch_size is not None and internal_batch_size < 1:
            raise InvalidInputError(f"internal_batch_size: expected at least 1, got {internal_batch_size}")
        box = Bounds.of(bounds)
        measure, scale = _norm_and_scale(norm, scale)
        with torch.inference_mode(mode=False):
            packed = Packed.of(
                _format_tensor_into_tuples(inputs),
                target=target,
                arguments=_format_additional_forward_args(additional_forward_args),
                scale=scale,
                mask=mask,
            )
        if box is not None:
            box.check(packed.features)
        batches = list(packed.batches(internal_batch_size))
        with (
            no_trace(self.forward_func, packed.features, evaluation=False),
            tqdm(total=len(batches) * n_steps, disable=not show_progress, desc=self.get_name(), unit="step") as bar,
        ):
            deltas = torch.cat([self._perturb(batch, settings, measure, box, bar) for batch in batches])
        attributions = _format_output(_is_tuple(inputs), packed.unpack(deltas))
        if return_convergence_delta:
            return attributions, measure(packed.scale).size(deltas) - rho
        return attributions

    def has_convergence_delta(self) -> bool:
        """Whether ``attribute`` can return a convergence delta: it can."""
        return True

    def compute_convergence_delta(
        self, attributions: TensorOrTensors, *, rho: float = 0.1, norm: Norm | str = "rmse", scale: Any = None
    ) -> Tensor:
        """Achieved size of given attributions minus ``rho``, shape (N,); the arguments as given to ``attribute``."""
        measure, scale = _norm_and_scale(norm, scale)
        packed = Packed.of(
            _format_tensor_into_tuples(attributions), target=None, arguments=None, scale=scale, mask=None
        )
        return measure(packed.scale).size(packed.features) - rho

    def _perturb(
        self, batch: Packed, settings: _Settings, norm: type[Norm], box: Bounds | None, bar: tqdm[Any]
    ) -> Tensor:
        """The perturbation of one batch, (N, features)."""
        measure = norm(batch.scale)
        sign = 1.0 if settings.direction == "toward" else -1.0
        start = batch.features.clone()

        def look(delta: Tensor) -> tuple[Tensor, Tensor]:
            leaf = (start + delta).requires_grad_()
            output = self.forward_func(*batch.unpack(leaf), *batch.arguments)
            ascent = sign * gradient(evidence(output, batch.target, settings.objective, len(batch)), leaf)
            bar.update()
            return ascent if batch.mask is None else ascent * (batch.mask != 0), measure.size(delta) >= settings.rho

        return shrinking_steps(
            look,
            torch.zeros_like(start),
            norm=measure,
            n_steps=settings.n_steps,
            path_length=settings.overshoot * settings.rho,
            momentum=settings.momentum,
            clamp=None if box is None else lambda delta: box.clamp(start + delta) - start,
        ).detach()


def _norm_and_scale(norm: Norm | str, scale: Any) -> tuple[type[Norm], Any]:
    """The kind of norm, and the scale beside it or inside it: it may be one for each input."""
    if isinstance(norm, Norm):
        as_norm(norm, scale)  # refuses a scale beside a norm object
        return type(norm), norm.scale
    return type(as_norm(norm)), scale


@dataclass(frozen=True)
class _Settings:
    """How far to walk and what to follow; checked on construction."""

    rho: float
    n_steps: int
    overshoot: float
    momentum: float
    direction: str
    objective: str

    def __post_init__(self) -> None:
        check_path(n_steps=self.n_steps, rho=self.rho, overshoot=self.overshoot, momentum=self.momentum)
        if self.direction not in ("toward", "away"):
            raise InvalidInputError(f"direction: expected 'toward' or 'away', got {self.direction!r}")
        if self.objective not in OBJECTIVES:
            raise InvalidInputError(f"objective: expected one of {OBJECTIVES}, got {self.objective!r}")
