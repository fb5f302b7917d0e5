"""Contrastive adversarial explanations: why one class rather than another."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from captum.log import log_usage
from torch import Tensor

from captum_lipschitz.attr._change import ChangeAttribution, TensorOrTensors
from captum_lipschitz.attr._packing import Packed
from captum_lipschitz.attr._targets import Evidence, settle_contrast
from captum_lipschitz.attr._walk import Walk
from captum_lipschitz.geometry import Bounds, Norm


class ContrastiveAdversarialAttribution(ChangeAttribution):
    """What would have to be added to the inputs for the model to see more of one class and less of another.

    As ``AdversarialAttribution``, but it follows the log-odds between two classes, ``z_target - z_baseline``: what the
    two have in common, and what speaks for a third class, stays out of the picture.

    Args:
        forward_func: a model or any function of the inputs with several outputs for each example, as a rule (N, C)
            logits. It is called in the mode (train or eval) it is in; call ``model.eval()`` first.

    Example:
        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 10))
        >>> images = torch.rand(2, 3, 2, 2)
        >>> attribution = ContrastiveAdversarialAttribution(model)
        >>> change = attribution.attribute(images, target=3, baseline_target=5)
        >>> bool((attribution.compute_log_odds_change(change, images, 3, baseline_target=5) > 0).all())
        True

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, "Adversarial explanations" (the loop); the pair of classes:
        Prabhushankar et al. 2020, arXiv 2008.00178 ("why P, rather than Q").
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
        baseline_target: Any = None,
        rho: float | tuple[float, ...] = 0.1,
        n_steps: int = 35,
        overshoot: float = 5.0,
        momentum: float = 0.0,
        norm: Norm | str = "rmse",
        scale: Any = None,
        bounds: Bounds | tuple[Any, Any] | None = None,
        mask: Any = None,
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        return_convergence_delta: bool = False,
    ) -> Any:
        """Perturb every example by about ``rho`` toward the target and away from the baseline.

        Args:
            inputs: floating tensor (N, ...), or a tuple of them.
            target: the class, or the output, of each example, in any form Captum accepts.
            additional_forward_args: passed to ``forward_func`` after the inputs.
            baseline_target: the other one, in the same forms; ``None``, for (N, C) logits only, is the class that the
                model holds likeliest beside the target on the unperturbed example.
            rho: see ``AdversarialAttribution.attribute``, as all that follows.
            n_steps: gradient steps, at least 1.
            overshoot: total length of the path over ``rho``.
            momentum: of the direction, in [0, 1).
            norm: ``"rmse"`` (the paper's), ``"l2"``, ``"linf"`` or a ``Norm`` object.
            scale: ``rho`` is in units of each feature's scale.
            bounds: ``(lower, upper)`` that inputs plus perturbation stay in.
            mask: only where it is non-zero are inputs perturbed.
            internal_batch_size: examples run at once; ``None`` for all. Batches are cut by index. Where memory runs
                out they are halved, with one warning, unless BatchNorm is in train mode.
            show_progress: a progress bar over all steps.
            return_convergence_delta: return ``(attributions, delta)``.

        Returns:
            The perturbation(s), shaped as ``inputs``; with ``return_convergence_delta`` also the achieved size minus
            ``rho``, shape (N,).

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used.
            ModelOutputError, DisconnectedModelError: for a model without finite logits or without a gradient.

        Warns:
            CaptumLipschitzWarning: the gradient of some examples is zero, or became NaN or infinite on the way.
        """
        return self._explain(
            inputs,
            additional_forward_args,
            Walk(rho, n_steps, overshoot, momentum),
            _contrast,
            target=target,
            baseline_target=baseline_target,
            norm=norm,
            scale=scale,
            bounds=bounds,
            mask=mask,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
            return_convergence_delta=return_convergence_delta,
        )

    def compute_log_odds_change(  # type: ignore[override]
        self,
        attributions: TensorOrTensors,
        inputs: TensorOrTensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        baseline_target: Any = None,
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """How far the attributions, added to the inputs, move the log-odds of target against baseline, shape (N,).

        The arguments are those of ``attribute``; the answer is after minus before, in nats.

        Args:
            attributions: what was returned for these inputs, a tuple for several.
            inputs: as given to ``attribute``.
            target: likewise.
            additional_forward_args: likewise.
            baseline_target: likewise.
            internal_batch_size: examples run at once; ``None`` for all.

        Returns:
            (N,), in nats.
        """
        return self._evidence_change(
            attributions,
            inputs,
            additional_forward_args,
            _contrast,
            internal_batch_size=internal_batch_size,
            target=target,
            baseline_target=baseline_target,
        )


def _contrast(batch: Packed) -> Evidence:
    return Evidence(
        partial(settle_contrast, target=batch.target, baseline_target=batch.baseline_target, num_rows=len(batch))
    )
