"""Minimal adversarial explanations: the smallest change that alters the decision, a counterfactual."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import torch
from captum.log import log_usage
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._memory import in_chunks
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz.attacks import MinimumNormAttack
from captum_lipschitz.attr._change import ChangeAttribution, TensorOrTensors, evidence_for
from captum_lipschitz.attr._decision import Decision, decision_about
from captum_lipschitz.attr._packing import Packed
from captum_lipschitz.attr._targets import Evidence, Read, settle
from captum_lipschitz.attr._walk import Forward, check_batch_size, norm_and_scale
from captum_lipschitz.criteria import Criterion
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError
from captum_lipschitz.geometry import Bounds, Norm

_LENGTHENINGS = 10


class MinimalAdversarialAttribution(ChangeAttribution):
    """The smallest change of the inputs that alters what the model decides: a counterfactual.

    Unlike ``AdversarialAttribution`` its size is the answer, not a setting: a small change means that the decision was
    a close one, or the model fragile there. Found by ``MinimumNormAttack``, so it is an upper bound.

    Args:
        forward_func: a model or any function of the inputs, as for Captum's other methods. A module is run in
            evaluation mode and left as it was, since in train mode examples have no decisions of their own; modules
            behind a function must be in evaluation mode already.

    Example:
        >>> import torch
        >>> model = torch.nn.Linear(2, 2)
        >>> with torch.no_grad():
        ...     _ = model.weight.copy_(torch.eye(2)), model.bias.zero_()
        >>> change = MinimalAdversarialAttribution(model).attribute(torch.tensor([[1.0, 0.0]]))
        >>> change.round(decimals=2)
        tensor([[-0.5000,  0.5000]])

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods ("L2,min"; the criteria); Wachter, Mittelstadt and
        Russell 2017, arXiv 1711.00399 (counterfactual explanations).
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
        criterion: Criterion | str = "misclassified",
        threshold: float = 0.0,
        effort: Literal["fast", "standard", "thorough"] = "standard",
        n_steps: int | None = None,
        norm: Norm | str = "rmse",
        scale: Any = None,
        bounds: Bounds | tuple[Any, Any] | None = None,
        mask: Any = None,
        objective: Literal["auto", "log_odds", "multi_label", "regression", "output"] = "auto",
        internal_batch_size: int | None = None,
        show_progress: bool = False,
        return_convergence_delta: bool = False,
    ) -> Any:
        """The smallest change found after which the criterion is met.

        Args:
            inputs: floating tensor (N, ...), or a tuple of them, all of whose features count for the size.
            target: in any form Captum accepts. Of (N, C) logits: the class whose decision is to change, ``None`` for
                the one that the model decides for. Otherwise: the output that is to cross ``threshold``.
            additional_forward_args: passed to ``forward_func`` after the inputs.
            criterion: of (N, C) logits: ``"misclassified"``, the target is no longer the decision; ``"below_chance"``,
                its probability is at most 1 / C; ``"reaches"``, the target becomes the decision; or a ``Criterion``.
                Other outputs have one criterion only, which is to cross the threshold.
            threshold: of a single output, in its units: where the decision changes. 0 is that of a logit.
            effort: gradients that an example may cost: ``"fast"`` 20, ``"standard"`` 100, ``"thorough"`` 450.
            n_steps: gradients that an example may cost, in place of the effort's.
            norm: ``"rmse"`` (the paper's), ``"l2"``, ``"linf"`` or a ``Norm`` object: what smallest means.
            scale: broadcast to the inputs (a tuple: one for each); sizes are in units of each feature's scale. Where
                examples differ in it, they are run one by one.
            bounds: ``(lower, upper)`` that inputs plus change stay in, see ``AdversarialAttribution.attribute``. Where
                examples differ in them, they are run one by one.
            mask: broadcast to the inputs (a tuple: one for each); only where it is non-zero are inputs changed.
            objective: ``"log_odds"`` treats the outputs as classes, ``"multi_label"``, ``"regression"`` and
                ``"output"`` the selected one by itself; ``"auto"``: classes where there are (N, C) of them, C at least
                2.
            internal_batch_size: examples run at once; ``None`` for all. Batches are cut by index. Where memory runs
                out they are halved, with one warning.
            show_progress: a progress bar over all examples.
            return_convergence_delta: return ``(attributions, delta)``.

        Returns:
            The change(s), shaped as ``inputs``: zero where the criterion is met already, and where nothing was found.
            With ``return_convergence_delta`` also the criterion's value after the change, shape (N,), in the outputs'
            units: 0 or barely less where the change ends on the boundary, more than 0 where nothing was found, and
            far below 0 where the criterion was met from the start.

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used.
            ModelOutputError, DisconnectedModelError: for a model without finite outputs or without a gradient.

        Warns:
            CaptumLipschitzWarning: for some examples no change was found.
        """
        check_batch_size(internal_batch_size)
        if not math.isfinite(threshold):
            raise InvalidInputError(f"threshold: expected a finite number, got {threshold}")
        kind, scale = norm_and_scale(norm, scale)
        packed, run, form = self._subject(
            inputs,
            additional_forward_args,
            internal_batch_size=internal_batch_size,
            target=target,
            scale=scale,
            bounds=bounds,
            mask=mask,
        )
        size = internal_batch_size if _alike(packed) else 1

        def work(start: int, stop: int) -> tuple[Tensor, Tensor]:
            batch, goal = packed.rows(slice(start, stop)), _between(criterion, start, stop)
            decide = partial(decision_about, criterion=goal, objective=objective, threshold=threshold)
            attack = MinimumNormAttack(
                effort=effort, steps=n_steps, norm=kind(_first(batch.scale)), bounds=_one(batch.bounds)
            )
            with settled(), no_trace(self.forward_func, batch.features):
                found = _smallest(attack, run, batch, decide)
            progress.update(len(batch))
            return found

        with tqdm(total=len(packed), disable=not show_progress, desc=self.get_name(), unit="example") as progress:
            found = in_chunks(work, len(packed), what="attribute", device=packed.features.device, at_once=size)
        delta, value = (torch.cat(parts) for parts in zip(*found, strict=True))
        _warn_of(value)
        attributions = form(packed.unpack(delta))
        return (attributions, value) if return_convergence_delta else attributions

    def compute_convergence_delta(  # type: ignore[override]
        self,
        attributions: TensorOrTensors,
        inputs: TensorOrTensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        criterion: Criterion | str = "misclassified",
        threshold: float = 0.0,
        objective: str = "auto",
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """The criterion's value after the change, shape (N,); the arguments as given to ``attribute``.

        Args:
            attributions: what was returned for these inputs, a tuple for several.
            inputs: as given to ``attribute``.
            target: likewise.
            additional_forward_args: likewise.
            criterion: likewise.
            threshold: likewise.
            objective: likewise.
            internal_batch_size: examples run at once; ``None`` for all.

        Returns:
            (N,), at most 0 where the change meets the criterion.
        """
        check_batch_size(internal_batch_size)
        packed, run, _ = self._subject(
            inputs, additional_forward_args, internal_batch_size=internal_batch_size, target=target
        )
        deltas = self._deltas(attributions, packed)

        def value(start: int, stop: int) -> Tensor:
            batch, goal = packed.rows(slice(start, stop)), _between(criterion, start, stop)
            with settled(), no_trace(self.forward_func, batch.features):
                decision = decision_about(run, batch, criterion=goal, objective=objective, threshold=threshold)
                return decision.value(batch.features + deltas[start:stop])

        device, name = packed.features.device, "compute_convergence_delta"
        return torch.cat(in_chunks(value, len(packed), what=name, device=device, at_once=internal_batch_size))

    def compute_log_odds_change(
        self,
        attributions: TensorOrTensors,
        inputs: TensorOrTensors,
        target: Any = None,
        additional_forward_args: Any = None,
        *,
        objective: str = "auto",
        internal_batch_size: int | None = None,
    ) -> Tensor:
        """How far the change moves the log-odds of the target, or of what was decided before: (N,), in nats.

        The arguments are those of ``attribute``; of single outputs it is the change of the output.

        Args:
            attributions: what was returned for these inputs, a tuple for several.
            inputs: as given to ``attribute``.
            target: likewise.
            additional_forward_args: likewise.
            objective: likewise.
            internal_batch_size: examples run at once; ``None`` for all.

        Returns:
            (N,), in nats; of single outputs in their units.
        """
        decide = evidence_for(objective) if target is not None else partial(_own_decision, objective=objective)
        return self._evidence_change(
            attributions,
            inputs,
            additional_forward_args,
            decide,
            internal_batch_size=internal_batch_size,
            evaluation=True,
            target=target,
        )


def _own_decision(batch: Packed, *, objective: str) -> Evidence:
    """The log-odds of what the model decides by itself; of single outputs, the output."""

    def read(output: object) -> Read:
        classes = isinstance(output, Tensor) and output.dim() == 2 and output.shape[1] > 1
        target = output.argmax(1) if isinstance(output, Tensor) and classes else None
        return settle(output, target, objective, len(batch))

    return Evidence(read)


def _between(criterion: Criterion | str, start: int, stop: int) -> Criterion | str:
    """The goal of the examples from ``start`` to ``stop``."""
    return criterion.rows(torch.arange(start, stop)) if isinstance(criterion, Criterion) else criterion


def _smallest(
    attack: MinimumNormAttack, run: Forward, batch: Packed, decide: Callable[..., Decision]
) -> tuple[Tensor, Tensor]:
    """One batch's changes, (N, features), and the criterion's value after them, (N,).

    What is handed back is a difference, and rounded to the inputs' precision: added to the inputs again it may fall
    short of the boundary by a hair. It is lengthened until it does not.
    """
    decision = decide(run, batch)
    result = attack(decision.model, batch.features, decision.labels, decision.criterion)
    delta = result.adversarial_inputs - batch.features
    if batch.mask is not None:  # the model does not see what moved there
        delta = delta * batch.mask

    excess = max(torch.finfo(dtype).eps for dtype in batch.dtypes)
    for _ in range(_LENGTHENINGS):
        short = (decision.value(batch.features + batch.rounded(delta)) > 0) & result.found
        if not bool(short.any()):
            break
        longer = batch.features + (1 + excess) * delta
        longer = longer if batch.bounds is None else batch.bounds.clamp(longer)
        delta = torch.where(short[:, None], longer - batch.features, delta)
        excess *= 2
    delta = batch.rounded(delta)
    after = decision.value(batch.features + delta)
    return torch.where((after > 0)[:, None], torch.zeros_like(delta), delta), after


def _alike(packed: Packed) -> bool:
    """Whether all examples have the same scale and the same bounds."""
    own = [packed.scale, *(packed.bounds or ())]
    return all(bool((value == value[:1]).all()) for value in own if isinstance(value, Tensor))


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, Tensor) else value


def _one(bounds: Bounds | None) -> Bounds | None:
    """The bounds of one example, which are every example's."""
    return None if bounds is None else Bounds(_first(bounds.lower), _first(bounds.upper))


def _warn_of(value: Tensor) -> None:
    count = int((value > 0).sum())
    if count:
        warnings.warn(
            f"attribute: for {count} of {len(value)} examples no change was found that meets the criterion; theirs is "
            "zero",
            CaptumLipschitzWarning,
            stacklevel=4,
        )
