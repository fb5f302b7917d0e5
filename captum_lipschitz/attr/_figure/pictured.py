"""What a figure of attributions shows, read from what the user gave: checked, on the CPU, in float32."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from captum_lipschitz._model import check_inputs, check_labels, check_logits, device_of
from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz._typing import Model
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.geometry import Bounds

Array: TypeAlias = Tensor | np.ndarray[Any, Any]
Attributions: TypeAlias = Array | Sequence[Array] | Mapping[str, Array]


@dataclass(frozen=True)
class Pictured:
    """N images with K attributions each.

    Attributes:
        images: (N, C, H, W), in the user's own dtype and on their device.
        perturbed: images plus attributions, clamped to the bounds, (N, K, C, H, W), float32 or finer.
        clamped: whether that changed any value by more than the sum's rounding.
        heat: attributions summed over channels, (N, K, H, W), float32 on the CPU.
        channels: how many channels each column's attributions have, C or 1.
        changes: whether the attributions can be taken for changes of the images unasked: one tensor, of as many
            channels. Methods set beside one another seldom are (those of Integrated Gradients are not).
        titles: the columns' titles where the attributions bring them (a mapping's keys).
    """

    images: Tensor
    perturbed: Tensor
    clamped: bool
    heat: Tensor
    bounds: Bounds
    channels: list[int]
    changes: bool
    titles: list[str] | None

    @classmethod
    def of(cls, attributions: Attributions, images: Array, bounds: tuple[float, float]) -> Pictured:
        """Read images (C, H, W) or (N, C, H, W), and attributions of the same or of one more dimension."""
        given = check_inputs(_tensor(images, "images"), "images")
        if given.dim() not in (3, 4):
            raise InvalidInputError(f"images: expected (C, H, W) or (N, C, H, W), got {tuple(given.shape)}")
        if given.shape[-1] in (1, 3) and given.shape[-3] not in (1, 3):
            raise InvalidInputError(
                f"images: expected channels first, (C, H, W) or (N, C, H, W), got {tuple(given.shape)}; "
                "move them with images.movedim(-1, -3)"
            )
        box = Bounds.of(bounds)
        if box is None:
            raise InvalidTypeError("bounds: expected the pair (darkest, brightest) to draw images with, got None")
        if not torch.equal(given, box.clamp(given)):
            raise InvalidInputError(
                f"images: expected values within bounds ({box.lower:g}, {box.upper:g}), got "
                f"{float(given.min()):.4g} to {float(given.max()):.4g}; undo a mean/std normalisation, "
                "or give their range as bounds"
            )
        batch = given if given.dim() == 4 else given[None]
        columns, titles = _columns(attributions, given)
        fine = batch.to(torch.promote_types(batch.dtype, torch.float32))[:, None]  # half precision hides small changes
        sums = torch.cat([fine + column.to(fine) for column in columns], 1)
        perturbed = box.clamp(sums)
        rounding = 4 * torch.finfo(torch.float32).eps * float(sums.abs().max())
        clamped = bool(((sums - perturbed).abs() > rounding).any())
        heat = torch.cat([column.float().sum(2).cpu() for column in columns], 1)
        channels = [column.shape[2] for column in columns]
        changes = not isinstance(attributions, (Mapping, list, tuple)) and channels == [batch.shape[1]]
        return cls(batch, perturbed, clamped, heat, box, channels, changes, titles)

    def shown(self, values: Tensor) -> np.ndarray[Any, Any]:
        """One image (C, H, W) as matplotlib takes it, scaled to [0, 1]: (H, W, 3), or (H, W) where grey."""
        unit = (values.float().cpu() - self.bounds.lower) / (self.bounds.upper - self.bounds.lower)
        array: np.ndarray[Any, Any] = (unit[0] if len(unit) == 1 else unit.movedim(0, -1)).clamp(0, 1).numpy()
        return array

    @property
    def range(self) -> str:
        """The bounds in words."""
        lower, upper = (float(limit) for limit in self.bounds)
        return f"[{lower:.4g}, {upper:.4g}]"

    def probabilities(self, model: Model) -> tuple[Tensor, Tensor]:
        """Softmax of the model's logits: of the images, (N, M), and of the perturbed images as drawn, (N, K, M)."""
        images, perturbed = self.images, self.perturbed.to(self.images.dtype)
        device = device_of(model)
        if device is not None:  # NumPy arrays are on none
            images, perturbed = images.to(device), perturbed.to(device)
        with settled(), no_trace(model, images), torch.no_grad():
            before = check_logits(model(images), len(images))
            after = [check_logits(model(columns), len(columns)) for columns in perturbed]
        return before.double().softmax(-1).cpu(), torch.stack(after).double().softmax(-1).cpu()

    def given_probabilities(self, pair: tuple[Array, Array]) -> tuple[Tensor, Tensor]:
        """The user's own, checked: (N, M) or (M,) before, (N, K, M) or what that lacks of N and K after."""
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InvalidTypeError(f"probabilities: expected a pair (before, after), got {type(pair).__name__}")
        before, after = (_tensor(p, "probabilities") for p in pair)
        num_images, num_columns = self.heat.shape[:2]
        if before.dim() not in (1, 2) or before.numel() != num_images * before.shape[-1]:
            raise InvalidInputError(
                f"probabilities: expected ({num_images}, classes) before, got {tuple(before.shape)}"
            )
        size = num_images * num_columns * before.shape[-1]
        if after.dim() not in (1, 2, 3) or after.shape[-1] != before.shape[-1] or after.numel() != size:
            raise InvalidInputError(
                f"probabilities: expected ({num_images}, {num_columns}, {before.shape[-1]}) after: images, columns, "
                f"classes; got {tuple(after.shape)}"
            )
        for values in (before, after):
            if not bool(((values >= 0) & (values <= 1)).all()):  # also NaN
                raise InvalidInputError(
                    f"probabilities: expected values in [0, 1], got {float(values.min()):.4g} to "
                    f"{float(values.max()):.4g}; of logits take softmax(-1) first"
                )
        return (
            before.double().cpu().reshape(num_images, -1),
            after.double().cpu().reshape(num_images, num_columns, -1),
        )

    def classes(self, classes: int | Sequence[int] | Tensor) -> Tensor:
        """The class that each attribution explains, (N, K), from an int, (K,), (N,) where K is 1, or (N, K)."""
        num_images, num_columns = self.heat.shape[:2]
        given = torch.as_tensor(classes).cpu()
        fits = {(num_columns,): (1, -1), (): (1, 1), (num_images, num_columns): (num_images, num_columns)}
        if num_columns == 1:
            fits[num_images,] = (num_images, 1)
        if tuple(given.shape) not in fits:
            raise InvalidInputError(
                f"classes: expected one for each column, ({num_columns},), or ({num_images}, {num_columns}), "
                f"got {tuple(given.shape)}"
            )
        check_labels(given.reshape(-1), given.numel(), name="classes")
        return given.reshape(fits[tuple(given.shape)]).expand(num_images, num_columns)


def _columns(attributions: Attributions, images: Tensor) -> tuple[list[Tensor], list[str] | None]:
    """Attributions as tensors (N, K, C or 1, H, W) whose columns stand side by side, and their titles."""
    if isinstance(attributions, Mapping):
        titles = [str(key) for key in attributions]
        named = [(f"attributions[{key!r}]", part) for key, part in attributions.items()]
    elif isinstance(attributions, (list, tuple)):
        titles, named = None, [(f"attributions[{k}]", part) for k, part in enumerate(attributions)]
    else:
        return [_fitting(attributions, images, "attributions", alone=False)], None
    if not named:
        raise InvalidInputError("attributions: expected at least one, got none")
    return [_fitting(part, images, name, alone=True) for name, part in named], titles


def _fitting(attribution: object, images: Tensor, name: str, *, alone: bool) -> Tensor:
    """One attribution as (N, K, C or 1, H, W); K is 1 where it is a column ``alone``."""
    values = given = check_inputs(_tensor(attribution, name), name)
    if images.dim() == 3:
        images, values = images[None], values[None]
    if values.dim() == 4:
        values = values[:, None]
    fits = values.dim() == 5 and values.shape[2] in (images.shape[1], 1) and (values.shape[1] == 1 or not alone)
    if not fits or len(values) != len(images) or values.shape[3:] != images.shape[2:]:
        columns = "as each column" if alone else "or with K columns, (K, C, H, W) of one image or (N, K, C, H, W)"
        raise InvalidInputError(
            f"{name}: expected the shape of the images, {tuple(images.shape)}, {columns}, "
            f"with as many channels or one; got {tuple(given.shape)}"
        )
    return values


def _tensor(values: object, name: str) -> Tensor:
    """A detached tensor; NumPy's double precision becomes PyTorch's default, which models take."""
    if isinstance(values, np.ndarray):
        tensor = torch.from_numpy(np.ascontiguousarray(values))
        return tensor.to(torch.get_default_dtype()) if tensor.is_floating_point() else tensor
    if not isinstance(values, Tensor):
        raise InvalidTypeError(f"{name}: expected a tensor or a NumPy array, got {type(values).__name__}")
    return values.detach()
