"""How a method of Captum's becomes ``explain(images, targets)`` that leaves no trace and takes images one by one."""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from captum_lipschitz._hooks import hooks_kept
from captum_lipschitz._model import check_inputs, check_labels
from captum_lipschitz._shared import ignored_warnings
from captum_lipschitz._trace import no_trace, seeded, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import ModelOutputError
from captum_lipschitz.geometry import Bounds, Norm
from captum_lipschitz.metrics.maps import Explain

Answer = Callable[[Tensor, Tensor], Tensor]
"""Attributions for a part of a batch, within ``no_trace``."""

_VALUES_AT_ONCE = 2**21  # of inputs in one pass: 13 images of 3 x 224 x 224
_ROWS_AT_MOST = 64  # more only cost memory


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What all methods share.

    Attributes:
        outputs: of the model, that can be explained.
        rows: inputs run at once.
        seed: of the methods that draw.
        baseline: what stands for "not there", broadcast to the inputs, where the user has said so.
        bounds: of the inputs.
        norm: of the adversarial explanation.
        multi_label: each output is a label of its own.
    """

    outputs: int
    rows: int
    seed: int = 0
    baseline: Tensor | None = None
    bounds: Bounds | None = None
    norm: Norm | str = "rmse"
    multi_label: bool = False


def rows_for(inputs: Tensor) -> int:
    """How many inputs (N, ...) of this size to run at once."""
    return max(1, min(_ROWS_AT_MOST, _VALUES_AT_ONCE // max(1, math.prod(inputs.shape[1:]))))


def explaining(model: Model, answer: Answer, setting: Setting) -> Explain:
    """A method as a function of images and targets.

    It refuses what it cannot use, runs the model in evaluation mode, leaves no trace of itself (modes, Captum's hooks,
    the global random state), and keeps Captum's remarks about its hooks to itself.

    Args:
        model: that ``answer`` explains.
        answer: attributions of at most ``setting.rows`` images; may change its arguments, which are copies.
        setting: see there; the batch is cut by index.
    """

    def explain(images: Tensor, targets: Tensor) -> Tensor:
        check_inputs(images, "images")
        targets = check_labels(targets, len(images), setting.outputs, "targets").to(images.device)
        with settled(), no_trace(model, images), hooks_kept(*_modules(model)), _captum_quiet():
            parts = [
                answer(part.detach().clone(), aims.clone()).detach()
                for part, aims in zip(images.split(setting.rows), targets.split(setting.rows), strict=True)
            ]
            found = torch.cat(parts).to(images.dtype)
        if len(found) != len(images):
            raise ModelOutputError(f"model: expected one row of logits per image, {len(images)}, got {len(found)}")
        return found

    return explain


def one_by_one(answer: Answer, seed: int | None = None) -> Answer:
    """The same, an image at a time: its answer is the same bits whatever is beside it.

    Args:
        answer: attributions of one image, (1, ...).
        seed: for what draws from the global generators, as Captum's methods do: they are set to it before each image,
            so that all images get the same draws, and nearly equal images nearly equal answers. ``explaining`` puts
            them back.
    """

    def single(images: Tensor, targets: Tensor) -> Tensor:
        found = []
        for image, target in zip(images.split(1), targets.split(1), strict=True):
            with nullcontext() if seed is None else seeded(seed, image.device):
                found.append(answer(image, target))
        return torch.cat(found)

    return single


def seed_of(image: Tensor, seed: int) -> int:
    """A seed from an image's values and another seed, so that draws depend on neither neighbours nor chunks.

    Example:
        >>> image = torch.rand(1, 3, 4, 4)
        >>> seed_of(image, 0) == seed_of(image.clone(), 0), seed_of(image, 0) == seed_of(image, 1)
        (True, False)
    """
    values = image.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    digest = hashlib.blake2b(values, digest_size=8, key=str(seed).encode()).digest()
    return int.from_bytes(digest, "little") >> 1


def _modules(model: Model) -> list[nn.Module]:
    return list(model.modules()) if isinstance(model, nn.Module) else []


_captum_quiet = ignored_warnings(
    partial(warnings.filterwarnings, "ignore", category=UserWarning, module=r"captum\.")
).within
"""Without Captum's remarks about hooks and gradients that it sets and takes away again."""
