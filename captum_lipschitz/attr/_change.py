"""What all attributions that change their inputs share: packing, running, measuring and formatting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, NoReturn, TypeAlias

import torch
from captum._utils.common import _format_additional_forward_args, _format_output, _format_tensor_into_tuples, _is_tuple
from captum.attr._utils.attribution import GradientAttribution
from torch import Tensor
from tqdm.auto import tqdm

from captum_lipschitz._memory import in_chunks, one_room, takes_batch_statistics
from captum_lipschitz._model import check_logits
from captum_lipschitz._trace import no_trace, outside_inference_mode, settled
from captum_lipschitz.attr._budget import Budget
from captum_lipschitz.attr._packing import Packed, take
from captum_lipschitz.attr._targets import OBJECTIVES, Evidence, not_a_tensor, settle
from captum_lipschitz.attr._walk import Forward, Walk, check_batch_size, norm_and_scale, walk_all
from captum_lipschitz.criteria import Criterion
from captum_lipschitz.errors import InvalidInputError
from captum_lipschitz.geometry import Norm

TensorOrTensors: TypeAlias = Tensor | tuple[Tensor, ...]
Form: TypeAlias = Callable[[tuple[Tensor, ...]], Any]
"""From a tuple of tensors to the caller's form: one tensor, a tuple, or a list of either for several layers."""


class Subject(NamedTuple):
    """What an explanation changes, as rows; the model's output where it has become another; how to hand it back."""

    packed: Packed
    run: Forward
    form: Form


class ChangeAttribution(GradientAttribution):
    """An attribution that is a change of the inputs, or of what ``_subject`` says: base of this package's classes."""

    def has_convergence_delta(self) -> bool:
        """Whether ``attribute`` can return a convergence delta: it can."""
        return True

    def attribute_future(self) -> NoReturn:
        """Not implemented, as for most of Captum's methods."""
        raise NotImplementedError(f"attribute_future is not implemented for {type(self).__name__}")

    def compute_convergence_delta(
        self,
        attributions: TensorOrTensors,
        *,
        rho: float | tuple[float, ...] = 0.1,
        norm: Norm | str = "rmse",
        scale: Any = None,
    ) -> Tensor:
        """Achieved size of given attributions minus ``rho``, shape (N,); the arguments as given to ``attribute``."""
        kind, scale = norm_and_scale(norm, scale)
        packed = Packed.of(flat_tensors(attributions), scale=scale, name="attributions")
        return Budget(kind, packed, rho).excess(packed.features)

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
        """How far the attributions, added to the inputs, move the target's log-odds: after minus before, shape (N,).

        Args:
            attributions: as ``attribute`` returned them.
            inputs: as given to ``attribute``, and so are the other arguments.
            target: see ``attribute``.
            additional_forward_args: see ``attribute``.
            objective: see ``attribute``; with other objectives than log-odds, the change of the selected output.
            internal_batch_size: examples run at once; ``None`` for all.

        Returns:
            Nats; positive where the change speaks for the target.

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used.
        """
        return self._log_odds_change(
            attributions,
            inputs,
            target,
            additional_forward_args,
            objective=objective,
            internal_batch_size=internal_batch_size,
        )

    def attribute_classes(
        self,
        inputs: TensorOrTensors,
        classes: Sequence[int] | Tensor | None = None,
        additional_forward_args: Any = None,
        **settings: Any,
    ) -> Any:
        """One attribution for each class of each example, all in one batch (or in ``internal_batch_size`` at once).

        Args:
            inputs: as for ``attribute``, N examples.
            classes: K of them, as integers, or (N, K), those of each example; ``None`` for all that the model has.
            additional_forward_args: see ``attribute``; tensors of N rows are repeated for the classes.
            **settings: of ``attribute``; tensors of N rows (a mask, a scale) are repeated for the classes.

        Returns:
            As ``attribute`` returns, of shape (N, K, ...) instead of (N, ...).

        Raises:
            InvalidInputError, InvalidTypeError: for arguments that cannot be used.
        """
        tensors, arguments = formatted(inputs, additional_forward_args)
        rows = len(tensors[0])
        if classes is None:
            first = [take(value, slice(0, 1), rows) for value in (*tensors, *arguments)]
            with settled(), no_trace(self.forward_func, tensors[0], evaluation=False), torch.no_grad():
                output = self.forward_func(*first)
                if not isinstance(output, Tensor):
                    raise not_a_tensor(output)
                classes = range(check_logits(output, 1, at_least=1).shape[1])
        numbers = _numbers(classes, rows).to(tensors[0].device)
        times = numbers.shape[1]
        examples = torch.arange(rows).repeat_interleave(times)

        def setting(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(setting(part) for part in value)
            if isinstance(value, Criterion):
                return value.rows(examples)
            # One entry per example has an example's dimensions; what has fewer is of one example, and broadcasts.
            whole = isinstance(value, Tensor) and value.dim() >= tensors[0].dim()
            return _repeated(value, rows, times) if whole else value

        if "baseline_target" in settings:
            settings["baseline_target"] = _repeated(settings["baseline_target"], rows, times)
        answer = self.attribute(
            _repeated(inputs, rows, times),
            numbers.flatten(),
            _repeated(arguments, rows, times),
            **{name: value if name == "baseline_target" else setting(value) for name, value in settings.items()},
        )
        return _unflattened(answer, rows, times)

    def _subject(
        self, inputs: TensorOrTensors, additional_forward_args: Any, *, internal_batch_size: int | None, **rest: Any
    ) -> Subject:
        """The inputs themselves; ``rest`` is what ``Packed.of`` takes."""
        del internal_batch_size
        tensors, arguments = formatted(inputs, additional_forward_args)
        with outside_inference_mode():
            packed = Packed.of(tensors, arguments=arguments, **rest)

        def run(batch: Packed, features: Tensor) -> object:
            return self.forward_func(*batch.unpack(features), *batch.arguments)

        return Subject(packed, run, partial(_format_output, _is_tuple(inputs)))

    def _explain(
        self,
        inputs: TensorOrTensors,
        additional_forward_args: Any,
        walk: Walk,
        evidence: Callable[[Packed], Evidence],
        *,
        norm: Norm | str,
        scale: Any,
        internal_batch_size: int | None,
        show_progress: bool,
        return_convergence_delta: bool,
        **rest: Any,
    ) -> Any:
        """Walk with every example, and hand back what it was changed by."""
        check_batch_size(internal_batch_size)
        kind, scale = norm_and_scale(norm, scale)
        with one_room():
            packed, run, form = self._subject(
                inputs, additional_forward_args, internal_batch_size=internal_batch_size, scale=scale, **rest
            )
            with tqdm(total=walk.n_steps, disable=not show_progress, desc=self.get_name(), unit="step") as progress:
                deltas = walk_all(
                    walk,
                    run,
                    packed,
                    evidence,
                    kind,
                    model=self.forward_func,
                    at_once=internal_batch_size,
                    progress=progress,
                )
        attributions = form(packed.unpack(deltas))
        if return_convergence_delta:
            return attributions, Budget(kind, packed, walk.rho).excess(packed.rounded(deltas))
        return attributions

    def _log_odds_change(
        self,
        attributions: Any,
        inputs: TensorOrTensors,
        target: Any,
        additional_forward_args: Any,
        *,
        objective: str,
        **rest: Any,
    ) -> Tensor:
        return self._evidence_change(
            attributions, inputs, additional_forward_args, evidence_for(objective), target=target, **rest
        )

    def _evidence_change(
        self,
        attributions: Any,
        inputs: TensorOrTensors,
        additional_forward_args: Any,
        evidence: Callable[[Packed], Evidence],
        *,
        internal_batch_size: int | None,
        evaluation: bool = False,
        **rest: Any,
    ) -> Tensor:
        check_batch_size(internal_batch_size)
        with one_room():
            packed, run, _ = self._subject(
                inputs, additional_forward_args, internal_batch_size=internal_batch_size, **rest
            )
            deltas = self._deltas(attributions, packed)

            def change(start: int, stop: int) -> Tensor:
                batch = packed.rows(slice(start, stop))
                read = evidence(batch)
                with settled(), no_trace(self.forward_func, batch.features, evaluation=evaluation), torch.no_grad():
                    before = read(run(batch, batch.features.clone()))  # the model may change what it is given
                    after = read(run(batch, batch.features + deltas[start:stop]))
                return after - before

            changes = in_chunks(
                change,
                len(packed),
                what="compute_log_odds_change",
                device=packed.features.device,
                at_once=internal_batch_size,
                halve=evaluation or not takes_batch_statistics(self.forward_func),
            )
            return torch.cat(changes)

    @staticmethod
    def _deltas(attributions: Any, packed: Packed) -> Tensor:
        """Attributions of what is packed, joined as it is, (N, features)."""
        deltas = Packed.of(flat_tensors(attributions), name="attributions").features
        if deltas.shape != packed.features.shape:
            raise InvalidInputError("attributions: expected the shapes of what they change, got others")
        return deltas


def formatted(inputs: TensorOrTensors, additional_forward_args: Any) -> tuple[tuple[Tensor, ...], tuple[Any, ...]]:
    """Inputs and additional arguments, each as a tuple."""
    arguments = _format_additional_forward_args(additional_forward_args)
    return _format_tensor_into_tuples(inputs), () if arguments is None else arguments


def flat_tensors(values: Any) -> tuple[Tensor, ...]:
    """The tensors in a tensor, a tuple, or a list of either (several layers)."""
    if isinstance(values, Tensor):
        return (values,)
    return tuple(tensor for value in values for tensor in flat_tensors(value))


def evidence_for(objective: str) -> Callable[[Packed], Evidence]:
    """How a batch's evidence for its target is read off the model's outputs; see ``OBJECTIVES``."""
    if objective not in OBJECTIVES:
        raise InvalidInputError(f"objective: expected one of {OBJECTIVES}, got {objective!r}")
    return lambda batch: Evidence(partial(settle, target=batch.target, objective=objective, num_rows=len(batch)))


def sign_of(direction: str) -> float:
    """1 toward the evidence, -1 away from it."""
    if direction not in ("toward", "away"):
        raise InvalidInputError(f"direction: expected 'toward' or 'away', got {direction!r}")
    return 1.0 if direction == "toward" else -1.0


def _repeated(value: Any, rows: int, times: int) -> Any:
    """Each row of what has one per example, as often as told; everything else as it is."""
    if isinstance(value, tuple):
        return tuple(_repeated(part, rows, times) for part in value)
    if isinstance(value, list) and len(value) == rows:
        return [part for part in value for _ in range(times)]
    return take(value, torch.arange(rows).repeat_interleave(times), rows)


def _numbers(classes: Sequence[int] | Tensor, rows: int) -> Tensor:
    """The classes of each of ``rows`` examples, (N, K)."""
    expected = f"classes: expected some integers, or a tensor of them of shape ({rows}, K)"
    try:
        numbers = classes if isinstance(classes, Tensor) else torch.tensor(list(classes))
    except (TypeError, ValueError, RuntimeError) as error:
        raise InvalidInputError(f"{expected}, got {classes!r}") from error
    whole = not (numbers.is_floating_point() or numbers.is_complex() or numbers.dtype == torch.bool)
    if not whole or numbers.numel() == 0 or numbers.dim() not in (1, 2):
        raise InvalidInputError(f"{expected}, got {classes!r}")
    if numbers.dim() == 2 and len(numbers) != rows:
        raise InvalidInputError(f"{expected}, got {tuple(numbers.shape)}")
    return numbers.expand(rows, -1)


def _unflattened(values: Any, rows: int, columns: int) -> Any:
    """(rows * columns, ...) to (rows, columns, ...), in tensors, tuples and lists of them."""
    if isinstance(values, Tensor):
        return values.unflatten(0, (rows, columns))
    return type(values)(_unflattened(value, rows, columns) for value in values)
