"""timm's training tasks with the penalty in their loss."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

import torch
from timm.task import ClassificationTask, TrainingTask
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz.errors import (
    CaptumLipschitzWarning,
    InvalidInputError,
    InvalidTypeError,
    UnsupportedTrainingError,
)
from captum_lipschitz.training import LipschitzRegularizer
from captum_lipschitz_timm.state import load_regularizer_state, regularizer_state
from captum_lipschitz_timm.wrapping import refuse_other_averages, trainable, unfuse_attention

if TYPE_CHECKING:
    from typing_extensions import Self

STATE = "captum_lipschitz"
"""Where a task's state, ``task_state`` in timm's checkpoints, holds the regularizer's."""


_WATCHED_STEPS = 16


class LipschitzTask(TrainingTask):
    """What makes a training task a regularised one: put it before the task's class.

    ``task(input, target)`` returns the task's dictionary, whose ``loss`` has the penalty in it; new are ``penalty`` and
    ``strength``, detached scalars. The gradient of the penalty is taken through the task's own forward pass
    (DistributedDataParallel's, where it is wrapped) from its ``output``, the logits, (N, C). So the loop that calls
    the task divides, scales and differentiates one loss, and needs no change. In evaluation mode or without gradients
    the task is its class's own.

    Fused attention, which cannot be differentiated twice, is turned off in the network (``fused_attn = False`` of
    timm's attention modules).

    ``target`` is passed to the regularizer as it is: classes, (N,), mixup's probabilities, (N, C), or with
    ``multi_label=True`` sets of labels, (N, C). A controller sees the task's loss, whatever it is: its target loss is
    in that loss's units.

    Under gradient accumulation the regularizer has ``accumulation_steps`` as the loop has it. A last step that is
    shorter is noticed, as the parameters have then been changed; and where half of the last 16 steps were complete
    before the parameters had changed, it is warned of once.

    The regularizer's state is in ``get_checkpoint_state()``, so in the files of ``CheckpointSaver(task=...)``, and
    ``resume_task_checkpoint`` brings it back.

    Attributes:
        regularizer: the one that forms the penalty.

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    regularizer: LipschitzRegularizer
    _versions: int | None
    _unfused: list[Any]
    _passes: int  # since the parameters changed
    _early: deque[bool]  # of the last steps, whether the regularizer ended them before the optimiser did
    _warned: bool
    _averages_seen: bool

    def _start(self, regularizer: LipschitzRegularizer) -> None:
        if not isinstance(regularizer, LipschitzRegularizer):
            raise InvalidTypeError(
                f"regularizer: expected a captum_lipschitz.LipschitzRegularizer, got {type(regularizer).__name__}"
            )
        module = trainable(self)
        refuse_other_averages(self)
        self.regularizer = regularizer
        self._versions = None
        self._passes, self._early, self._warned = 0, deque(maxlen=_WATCHED_STEPS), False
        self._averages_seen = False
        self._unfused = unfuse_attention(module)

    def _end(self) -> None:
        for module in self._unfused:
            module.fused_attn = True
        del self.regularizer, self._versions, self._unfused
        del self._passes, self._early, self._warned, self._averages_seen

    def forward(self, input: Tensor, target: Tensor) -> dict[str, Tensor]:  # noqa: A002 - timm's name
        """The task's figures, with the penalty in the loss.

        Args:
            input: (N, C, H, W), floating.
            target: (N,) classes, or (N, K) probabilities or sets of labels.

        Raises:
            InvalidTypeError, InvalidInputError: for inputs, labels or a task without logits.
            UnsupportedTrainingError: the network is compiled, or DistributedDataParallel takes its graph for static.
        """
        module = trainable(self)
        if not torch.is_grad_enabled() or not (self.training or module.training):
            plain: dict[str, Tensor] = super().forward(input, target)
            return plain
        self._end_shorter_step(module)
        if not isinstance(input, Tensor) or not input.is_floating_point():
            raise InvalidTypeError(f"input: expected a floating tensor, got {getattr(input, 'dtype', type(input))}")
        leaf = input.detach().requires_grad_(self.regularizer.due)
        # Attention that is not timm's own is run in its mathematical form; and no leaf can be changed in place.
        with sdpa_kernel(SDPBackend.MATH):
            result = super().forward(leaf.clone(), target)
            logits, loss = _logits_and_loss(result, self)
            output = self.regularizer(logits, leaf, target, task_loss=loss)
        return {
            **result,
            # A tensor of its own: loops divide the loss in place, and the controller may still hold it.
            "loss": output.loss.clone(),
            "penalty": output.penalty.detach(),
            "strength": output.strength.detach(),
        }

    def prepare_distributed(self, *args: Any, **settings: Any) -> Self:
        """As the task's own, and refuses what would make the penalty's gradient wrong."""
        if settings.get("static_graph"):
            raise UnsupportedTrainingError(
                "static_graph: expected False, since the penalty's own gradient runs through the graph first, got True"
            )
        super().prepare_distributed(*args, **settings)
        return self

    def compile(self, *args: Any, **settings: Any) -> Any:  # noqa: ARG002
        """Refused: PyTorch cannot differentiate a compiled network twice.

        Raises:
            UnsupportedTrainingError: always.
        """
        raise UnsupportedTrainingError(
            "compile: expected a network that is not compiled, as a compiled one cannot be differentiated twice; "
            "train without --torchcompile. compile_ema(), for the evaluation of averaged weights, works"
        )

    def update_ema(self, step: int | None = None) -> None:
        """As the task's own; at first it looks whether the averaged network has the trained one's activations.

        Raises:
            UnsupportedTrainingError: ``with_half_huber`` came after ``setup_ema``.
        """
        if not self._averages_seen:
            refuse_other_averages(self)
            self._averages_seen = True
        super().update_ema(step=step)

    def get_task_state(self, module: nn.Module | None = None, ema: bool = False) -> dict[str, Any]:  # noqa: FBT001, FBT002
        """The task's own state and the regularizer's; of the averaged weights only the task's own."""
        state = dict(super().get_task_state(module, ema=ema))
        return state if ema else {**state, STATE: regularizer_state(self.regularizer)}

    def load_task_state(
        self,
        state: dict[str, Any] | None,
        strict: bool = True,  # noqa: FBT001, FBT002 - as timm has it
        module: nn.Module | None = None,
        ema: bool = False,  # noqa: FBT001, FBT002
    ) -> None:
        """Go on from a checkpoint.

        Warns:
            CaptumLipschitzWarning: it was made without the regularizer, which then begins anew.
        """
        own = dict(state or {})
        ours = own.pop(STATE, None)
        if not ema:
            load_regularizer_state(self.regularizer, ours)
        super().load_task_state(own or None, strict=strict, module=module, ema=ema)

    def _end_shorter_step(self, module: nn.Module) -> None:
        """End an optimiser step that had fewer micro-batches: its parameters are not the ones of the last pass."""
        versions = sum(parameter._version for parameter in module.parameters())  # noqa: SLF001 - autograd's own count
        changed = self._versions is not None and versions != self._versions
        if changed:
            self.regularizer.step()
        self._versions = versions
        self._warn_of_early_steps(changed=changed)

    def _warn_of_early_steps(self, *, changed: bool) -> None:
        """Warn once where the regularizer ends many steps before the optimiser: ``accumulation_steps`` is too small."""
        every = self.regularizer.accumulation_steps
        if changed:
            self._early.append(False)
            self._passes = 0
        elif every is not None and self._passes > 0 and self._passes % every == 0:
            self._early.append(True)
        self._passes += 1
        if not self._warned and sum(self._early) >= _WATCHED_STEPS // 2:  # half of them: a loop with twice as many
            self._warned = True
            warnings.warn(
                f"accumulation_steps: the regularizer has {every}, but the parameters often stay as they are for "
                "longer, so its controller, its ramp and every= count too many steps; give accumulation_steps as the "
                "loop has it (--grad-accum-steps). Without gradient accumulation the optimiser does not move what "
                "the task trains, or a gradient scaler skips its steps",
                CaptumLipschitzWarning,
                stacklevel=5,
            )


class LipschitzClassificationTask(LipschitzTask, ClassificationTask):
    """timm's ``ClassificationTask`` with the penalty in its loss, see ``LipschitzTask``.

    Args:
        model: returns logits, (N, C).
        criterion: as ``ClassificationTask`` takes it: any of timm's losses.
        regularizer: see ``LipschitzRegularizer``; with ``accumulation_steps`` as the loop has it.
        settings: the others of ``ClassificationTask``.

    Raises:
        InvalidTypeError, UnsupportedTrainingError: something else as the regularizer; a compiled network.

    Example:
        >>> import timm
        >>> model = timm.create_model("test_resnet", num_classes=5)
        >>> task = LipschitzClassificationTask(
        ...     model, nn.CrossEntropyLoss(), regularizer=LipschitzRegularizer(strength=0.1), verbose=False
        ... )
        >>> result = task(torch.rand(4, 3, 32, 32), torch.arange(4))
        >>> result["loss"].backward()
        >>> sorted(result)
        ['loss', 'output', 'penalty', 'strength']

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """

    def __init__(
        self,
        model: nn.Module,
        criterion: nn.Module | Callable[[Tensor, Tensor], Tensor] | None = None,
        *,
        regularizer: LipschitzRegularizer,
        **settings: Any,
    ) -> None:
        if criterion is not None:  # timm 1.0.28 makes none by itself, and says so
            settings["criterion"] = criterion
        super().__init__(model, **settings)
        self._start(regularizer)


class RegularizedTask:
    """The handle of a task that was made a regularised one.

    Attributes:
        task: the same object.
        regularizer: the one that forms the penalty.
    """

    def __init__(self, task: TrainingTask, regularizer: LipschitzRegularizer) -> None:
        self._before = type(task)
        self._during = type(f"Lipschitz{self._before.__name__}", (LipschitzTask, self._before), {})
        task.__class__ = self._during
        try:
            cast("LipschitzTask", task)._start(regularizer)  # noqa: SLF001 - its class is ours now
        except BaseException:
            task.__class__ = self._before
            raise
        self.task = task
        self.regularizer = regularizer

    def remove(self) -> None:
        """Make the task what it was. May be called more than once."""
        if type(self.task) is self._during:
            cast("LipschitzTask", self.task)._end()  # noqa: SLF001
            self.task.__class__ = self._before


def regularize_task(task: TrainingTask, regularizer: LipschitzRegularizer) -> RegularizedTask:
    """Put the penalty into the loss of any of timm's tasks, or of your own: distillation, several labels, ...

    The task itself is changed (its class becomes one with ``LipschitzTask`` before its own), so that whoever has it
    runs it regularised. Its dictionary has to have the logits as ``output``, as all of timm's have.

    Args:
        task: before or after ``prepare_distributed`` and ``setup_ema``; ``with_half_huber`` has to come before
            ``setup_ema``, which copies the network.
        regularizer: see ``LipschitzRegularizer``; with ``multi_label=True`` for ``MultiLabelClassificationTask``.

    Returns:
        A handle with ``remove()``.

    Raises:
        InvalidTypeError: something else as the task or the regularizer.
        InvalidInputError: the task has a penalty already.
        UnsupportedTrainingError: the network is compiled, or its averaged weights are in a network with other
            activations.

    Example:
        >>> import timm
        >>> model = timm.create_model("test_resnet", num_classes=5)
        >>> task = ClassificationTask(model, nn.CrossEntropyLoss(), verbose=False)
        >>> handle = regularize_task(task, LipschitzRegularizer(strength=0.1))
        >>> bool(task(torch.rand(4, 3, 32, 32), torch.arange(4))["penalty"] > 0)
        True
        >>> handle.remove()

    References:
        Woods, Chen and Teuscher 2019, arXiv 1906.02896, methods.
    """
    if not isinstance(task, TrainingTask):
        raise InvalidTypeError(f"task: expected a timm.task.TrainingTask, got {type(task).__name__}")
    if isinstance(task, LipschitzTask):
        raise InvalidInputError(f"task: expected one without a penalty, got a {type(task).__name__}")
    return RegularizedTask(task, regularizer)


def _logits_and_loss(result: Any, task: nn.Module) -> tuple[Tensor, Tensor]:
    if not isinstance(result, dict) or not {"loss", "output"} <= set(result):
        found = sorted(result) if isinstance(result, dict) else type(result).__name__
        raise InvalidInputError(
            f"task: expected {type(task).__name__} to return the logits as 'output' beside the 'loss', got {found}"
        )
    return result["output"], result["loss"]
