"""What kind of decision a model's output is, and one-logit models as models of two classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from captum_lipschitz._model import check_inputs, check_label_sets, check_labels
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, ModelOutputError

Kind = Literal["classes", "binary", "multi_label"]

_LABEL_BY_LABEL = (
    "the model decides {} labels, each by itself: there is no one decision that an attack changes while the others stay"
)


@dataclass(frozen=True)
class Head:
    """The decision that a model's output stands for.

    Attributes:
        kind: ``"classes"``, one of C by the largest logit; ``"binary"``, class 1 where the one logit is above 0;
            ``"multi_label"``, label k where logit k is above 0.
        outputs: that can be explained: C, 2 for one logit, or the number of labels.
        left_out: parts of an audit that this kind of decision has not, to the reason.
    """

    kind: Kind
    outputs: int
    left_out: dict[str, str] = field(default_factory=dict)

    def labels(self, labels: Tensor) -> Tensor:
        """The labels as classes (N,) int64; those of a multi-label model, (N, K) of 1, 0 and -1, as int64.

        Raises:
            InvalidInputError, InvalidTypeError: labels that this head does not have.

        Example:
            >>> Head("binary", 2).labels(torch.tensor([[0], [1]]))
            tensor([0, 1])
        """
        if self.kind == "multi_label":
            return check_label_sets(labels, len(labels), self.outputs)
        one_column = self.kind == "binary" and labels.dim() == 2 and labels.shape[1] == 1
        flat = labels[:, 0] if one_column else labels
        if self.kind == "binary" and (flat.dtype == torch.bool or flat.is_floating_point()):
            flat = _whole(flat)
        return check_labels(flat, len(flat), self.outputs)

    def decisions(self, logits: Tensor) -> Tensor:
        """What the model decides, from the logits of ``as_classes``: classes (N,), or 0 and 1 for each label (N, K)."""
        return (logits > 0).long() if self.kind == "multi_label" else logits.argmax(1)


def head_of(model: Model, images: Tensor, labels: Tensor | None = None) -> Head:
    """Look at what the model returns for some images, and at the form of the labels, which tells labels from classes.

    Args:
        model: any module or function; run once in evaluation mode, without gradients, and left as it was.
        images: (N, ...), a few will do.
        labels: of the data: (N, K) of 1, 0 and -1 (unknown) makes K outputs labels; classes (N,) or ``None``, classes.

    Raises:
        ModelOutputError: an output that is no decision: no floating tensor (N, C), (N, 1) or (N,). Also probabilities
            where logits are due: outputs, of one logit or of labels, that differ but all lie in [0, 1].
        InvalidInputError, InvalidTypeError: images or labels that cannot be used.

    Example:
        >>> head_of(lambda rows: rows[:, :1] - 1, torch.rand(2, 4)).kind
        'binary'
        >>> head_of(lambda rows: rows[:, :3] - 1, torch.rand(2, 4), torch.tensor([[1, 0, 1], [0, 0, -1]])).kind
        'multi_label'
    """
    images = check_inputs(images, "images")
    with settled(), no_trace(model, images), torch.no_grad():
        outputs: object = model(images)
    if not isinstance(outputs, Tensor) or not outputs.is_floating_point():
        kind = outputs.dtype if isinstance(outputs, Tensor) else type(outputs).__name__
        raise ModelOutputError(
            f"model: expected one floating tensor of logits, got {kind}; wrap the model in a function that returns them"
        )
    shape = tuple(outputs.shape)
    if shape[:1] != (len(images),) or len(shape) > 2 or 0 in shape:
        raise ModelOutputError(
            f"model: expected logits of shape ({len(images)}, C), ({len(images)}, 1) or ({len(images)},), got {shape}"
        )
    width = 1 if len(shape) == 1 else shape[1]
    if width == 1:
        _refuse_probabilities(outputs, "give two of them for each image, (0, z)")
        return Head("binary", 2)
    if isinstance(labels, Tensor) and labels.dim() == 2:
        if labels.shape[1] != width:
            raise InvalidInputError(
                f"labels: expected classes (N,), or one value for each of {width} outputs, got {tuple(labels.shape)}"
            )
        _refuse_probabilities(outputs, "subtract each label's threshold from them")
        reason = _LABEL_BY_LABEL.format(width)
        return Head("multi_label", width, {"invalidation": reason, "fidelity": reason})
    return Head("classes", width)


class BinaryAsClasses(nn.Module):
    """A model of one logit z as one of two classes with logits -z / 2 and z / 2.

    Their softmax is that of (0, z), so probabilities, log-odds and decisions are the model's own. With (0, z) methods
    that explain a logit would find nothing for class 0; so each class's logit is half of its log-odds.

    Args:
        model: maps inputs (N, ...) to logits (N, 1) or (N,). It becomes a submodule; its mode stays its own.

    Example:
        >>> BinaryAsClasses(lambda inputs: inputs.sum(1))(torch.tensor([[1.0, 3.0]]))
        tensor([[-2.,  2.]])
    """

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model
        self.training = isinstance(model, nn.Module) and model.training

    def forward(self, inputs: Tensor) -> Tensor:
        half = self.model(inputs).reshape(len(inputs), 1) / 2
        return torch.cat([-half, half], 1)


def as_classes(model: Model, head: Head) -> Model:
    """The model with one logit for each output that can be explained: itself, or ``BinaryAsClasses`` of it.

    Example:
        >>> model = lambda rows: rows[:, :1] - 1
        >>> as_classes(model, head_of(model, torch.rand(2, 4)))(torch.rand(2, 4)).shape
        torch.Size([2, 2])
    """
    return BinaryAsClasses(model) if head.kind == "binary" else model


def _refuse_probabilities(outputs: Tensor, otherwise: str) -> None:
    """Raise where every output lies in [0, 1], of several images that are told apart: as logits they decide all alike.

    Args:
        outputs: (N, K) or (N,).
        otherwise: what to do where they are logits.
    """
    low, high = outputs.min().item(), outputs.max().item()
    if len(outputs) > 1 and 0 <= low < high <= 1:
        raise ModelOutputError(
            f"model: expected logits, that are above 0 for one decision and below 0 for the other, got values within "
            f"[0, 1] for each of {len(outputs)} images, as probabilities are: give the model without its last sigmoid; "
            f"if these are logits, {otherwise}"
        )


def _whole(labels: Tensor) -> Tensor:
    """Labels of a binary model as they stand in many data sets, floats or bools, as integers."""
    whole = labels.long()
    if not torch.equal(whole.to(labels.dtype), labels):
        raise InvalidInputError(f"labels: expected 0 or 1, got {labels[whole.to(labels.dtype) != labels][0].item()}")
    return whole
