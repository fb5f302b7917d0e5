"""Adversarial explanations: the attack itself, of a given size, as an attribution."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from captum.log import log_usage

from captum_lipschitz.attr._change import ChangeAttribution, TensorOrTensors, evidence_for, sign_of
from captum_lipschitz.attr._walk import Walk
from captum_lipschitz.geometry import Bounds, Norm


class AdversarialAttribution(ChangeAttribution):
    """What would have to be added to the inputs for the model to see more (or less) of a class.

    The attribution is a perturbation of size about ``rho``: the image plus the perturbation shows what the model takes
    for the class. On a robust network it is made of the features that people see as well; on a fragile one it looks
    like noise, which is the evidence that the network decides by it.

    Args:
        forward_func: a model or any function of the inputs, as for Captum's other methods. It is called in the mode
            (train or eval) it is in; call ``model.eval()`` first.

    Example:
        >>> import torch
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
        """Perturb every example by about ``rho`` toward (or away from) the target.

        It costs ``n_steps`` forward and backward passes. Within a batch nothing waits for the device after the first.

        Args:
            inputs: floating tensor (N, ...), or a tuple of them.
            target: the output to explain, in any form Captum accepts; ``None`` for one output per example.
            additional_forward_args: passed to ``forward_func`` after the inputs.
            rho: size of the perturbation in the norm's units, positive: one budget over the features of all inputs. 0.1
                suits RGB images in [0, 1]. A tuple is a budget for each input; 0 leaves an input alone.
            n_steps: gradient steps, at least 1.
            overshoot: total length of the path over ``rho``; what exceeds rho is spent on turning corners.
            momentum: of the direction, in [0, 1).
            direction: ``"toward"`` more evidence for the target or ``"away"`` from it.
            norm: ``"rmse"`` (the paper's), ``"l2"``, ``"linf"`` or a ``Norm`` object.
            scale: broadcast to the inputs (a tuple: one for each); ``rho`` is then in units of each feature's scale.
            bounds: ``(lower, upper)`` that inputs plus perturbation stay in, each a number, a tensor that broadcasts to
                the inputs, or a tuple of one for each input; ``None``, as in the paper, for none.
            mask: broadcast to the inputs (a tuple: one for each); only where it is non-zero are inputs perturbed. An
                RMSE is a mean over all features, masked ones too; ``norm="l2"`` does not depend on their number.
            objective: what is followed. ``"log_odds"`` of the target among C classes; ``"multi_label"``, the target's
                logit among K independent ones; ``"regression"`` or ``"output"``, the selected output itself;
                ``"auto"``, log-odds where the output has shape (N, C) and there is a target, else the selected output.
            internal_batch_size: examples run at once; ``None`` for all. Batches are cut by index. Where memory runs
                out they are halved, with one warning, unless BatchNorm is in train mode.
            show_progress: a progress bar over all steps.
            return_convergence_delta: return ``(attributions, delta)``.

        Returns:
            The perturbation(s), shaped as ``inputs``; with ``return_convergence_delta`` also the achieved size minus
            ``rho``, shape (N,): about 0, clearly negative where the gradient vanished or the path only zigzagged. With
            a budget for each input it is that of the input that differs most.

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used.
            ModelOutputError, DisconnectedModelError: for a model without finite outputs or without a gradient.

        Warns:
            CaptumLipschitzWarning: the gradient of some examples is zero, or became NaN or infinite on the way.
        """
        return self._explain(
            inputs,
            additional_forward_args,
            Walk(rho, n_steps, overshoot, momentum, sign=sign_of(direction)),
            evidence_for(objective),
            target=target,
            norm=norm,
            scale=scale,
            bounds=bounds,
            mask=mask,
            internal_batch_size=internal_batch_size,
            show_progress=show_progress,
            return_convergence_delta=return_convergence_delta,
        )
