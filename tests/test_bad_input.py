"""Bad input: for each component a clear error of ours, naming the argument, before any work is done."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch import Tensor, nn

from captum_lipschitz import (
    AdversarialAttribution,
    LipschitzRegularizer,
    MinimumNormAttack,
    PaperAttack,
    accuracy_robustness_area,
)
from captum_lipschitz.errors import (
    CaptumLipschitzError,
    DisconnectedModelError,
    InvalidInputError,
    InvalidTypeError,
    ModelOutputError,
)

Use = Callable[[Any, Any, Any], object]


def _attribute(model: Any, inputs: Any, labels: Any) -> object:
    return AdversarialAttribution(model).attribute(inputs, target=labels)


def _penalise(model: Any, inputs: Any, labels: Any) -> object:
    leaf = inputs.clone().requires_grad_() if isinstance(inputs, Tensor) and inputs.is_floating_point() else inputs
    logits = model(leaf)
    return LipschitzRegularizer(strength=1.0)(logits, leaf, labels, task_loss=torch.ones(()))


USES: dict[str, Use] = {
    "minimum_norm": MinimumNormAttack(),
    "paper": PaperAttack(),
    "ara": lambda m, x, y: accuracy_robustness_area(m, (x, y)),
    "attribution": _attribute,
    "penalty": _penalise,
}

IMAGES, LABELS = build_batch(0, 5)
BAD_DATA: dict[str, tuple[Any, Any, type[Exception], str]] = {
    "empty batch": (IMAGES[:0], LABELS[:0], InvalidInputError, "non-empty"),
    "integer images": ((255 * IMAGES).to(torch.uint8), LABELS, InvalidTypeError, "floating point"),
    "NaN": (IMAGES.clone().index_fill_(0, torch.tensor(2), math.nan), LABELS, InvalidInputError, "NaN"),
    "label out of range": (IMAGES, LABELS + 4, InvalidInputError, r"0\.\.3"),
    "negative label": (IMAGES, LABELS - 9, InvalidInputError, r"0\.\.(3|C-1)"),
    "too few labels": (IMAGES, LABELS[:3], InvalidInputError, r"\(5,\)|does not fit"),
    "floating labels": (IMAGES, LABELS.double(), InvalidTypeError, "integer classes"),
}


class _Counting(nn.Module):
    """Counts how often the model was run."""

    def __init__(self) -> None:
        super().__init__()
        self.model = build_convolutional(1)
        self.calls = 0

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        output: Tensor = self.model(inputs)
        return output


@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("problem", BAD_DATA)
def test_bad_data(use: str, problem: str) -> None:
    inputs, labels, error, message = BAD_DATA[problem]
    model = (lambda x: build_convolutional(1)(x.double())) if use == "penalty" else _Counting().eval()
    with pytest.raises(error, match=message) as caught:
        USES[use](model, inputs, labels)
    assert isinstance(caught.value, CaptumLipschitzError)
    if isinstance(model, _Counting):
        assert model.calls <= 1  # the number of classes is known after one pass


@pytest.mark.parametrize("use", [use for use in USES if use != "penalty"])
@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda logits: (logits,), ModelOutputError, "got tuple"),
        (lambda logits: {"logits": logits}, ModelOutputError, "got dict"),
        (lambda logits: logits[:, :1], ModelOutputError, "at least two classes, got one"),
        (lambda logits: logits[:, 0], (ModelOutputError, InvalidInputError), r"\(5, C\)|does not fit"),
        (lambda logits: logits * math.nan, ModelOutputError, "NaN"),
        (lambda logits: logits.detach(), DisconnectedModelError, "does not depend on its input"),
        (
            lambda logits: torch.randn_like(logits, requires_grad=True) * 1.0,
            DisconnectedModelError,
            "does not depend on its input",
        ),
        (lambda logits: logits.argmax(1, keepdim=True).expand(-1, 4), ModelOutputError, "floating"),
    ],
)
def test_bad_models(use: str, wrong: Callable[[Tensor], Any], error: Any, message: str) -> None:
    model = build_convolutional(1)
    labels = model(IMAGES).argmax(1)
    with pytest.raises(error, match=message):
        USES[use](lambda x: wrong(model(x)), IMAGES, labels)


@pytest.mark.parametrize(
    ("logits", "error", "message"),
    [
        (lambda z: (z,), InvalidTypeError, r"logits: expected a tensor of shape \(N, C\)"),
        (lambda z: {"logits": z}, InvalidTypeError, r"logits: expected a tensor of shape \(N, C\)"),
        (lambda z: z[:, :1], ModelOutputError, "at least two classes"),
        (lambda z: z * math.nan, ModelOutputError, "NaN"),
        (lambda z: z.detach(), DisconnectedModelError, "does not depend on its input"),
        (lambda z: z[:3], ModelOutputError, r"\(5, C\)"),
    ],
)
def test_bad_logits_for_the_penalty(logits: Callable[[Tensor], Any], error: type[Exception], message: str) -> None:
    leaf = IMAGES.clone().requires_grad_()
    with pytest.raises(error, match=message):
        LipschitzRegularizer(strength=1.0)(logits(build_convolutional(1)(leaf)), leaf, LABELS, task_loss=torch.ones(()))


def test_the_penalty_needs_inputs_that_were_watched() -> None:
    with pytest.raises(InvalidInputError, match="requires_grad, set before the forward pass"):
        LipschitzRegularizer(strength=1.0)(build_convolutional(1)(IMAGES), IMAGES, LABELS, task_loss=torch.ones(()))


def test_every_error_is_also_a_builtin() -> None:
    from captum_lipschitz import errors

    found = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, CaptumLipschitzError)]
    assert len(found) > 8
    for error in found:
        if error is not CaptumLipschitzError:
            assert any(base.__module__ == "builtins" and base is not Exception for base in error.__mro__[1:-3]), error
