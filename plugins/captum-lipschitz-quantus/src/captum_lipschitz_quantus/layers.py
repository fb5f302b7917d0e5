"""The attribution of a layer, brought to the images' size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from captum.attr import LayerAttribution
from torch import Tensor, nn

from captum_lipschitz.attr import LayerAdversarialAttribution
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz_quantus.explainer import Explainer, over_channels

MODES = ("nearest", "linear", "bilinear", "bicubic", "trilinear", "area", "nearest-exact")


@dataclass(frozen=True)
class LayerExplainer(Explainer):
    """What ``layer_explain_func`` returns; its name is the layer's."""

    interpolate_mode: str = "nearest"

    __hash__ = Explainer.__hash__  # a dataclass would make one of all fields, settings too

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.name, str):
            raise InvalidTypeError(
                f"layer: expected its name, as in model.named_modules(), got {type(self.name).__name__}; Quantus "
                "explains copies of the model, whose layers are others"
            )
        if self.reduce is None:
            raise InvalidInputError("reduce: expected 'sum' or 'abs-sum', got None; a layer has channels of its own")
        if self.interpolate_mode not in MODES:
            raise InvalidInputError(f"interpolate_mode: expected one of {MODES}, got {self.interpolate_mode!r}")

    def explain(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        try:
            layer = model.get_submodule(self.name)
        except AttributeError as error:
            names = [name for name, _ in model.named_modules() if name]
            raise InvalidInputError(f"layer: expected one of {names}, got {self.name!r}") from error
        found = self.attributed(LayerAdversarialAttribution(model, layer).attribute, inputs, targets)
        if inputs.dim() < 3 or found.dim() != inputs.dim():
            raise InvalidInputError(
                f"layer: expected activations (N, channels, ...) with as many dimensions as images "
                f"{tuple(inputs.shape)}, got {tuple(found.shape)} from {self.name!r}; they have no place in the image"
            )
        upsampled = LayerAttribution.interpolate(
            over_channels(found, self.reduce), tuple(inputs.shape[2:]), self.interpolate_mode
        )
        assert isinstance(upsampled, Tensor)  # noqa: S101 (of one tensor it is one)
        return upsampled


def layer_explain_func(
    layer: str,
    *,
    reduce: Literal["sum", "abs-sum"] = "abs-sum",
    interpolate_mode: str = "nearest",
    **settings: Any,
) -> LayerExplainer:
    """An explanation function for Quantus of ``LayerAdversarialAttribution``, upsampled to the images.

    Args:
        layer: name of a submodule whose activations are (N, channels, ...), as a convolution's.
        reduce: of the layer's channels, before upsampling: ``"abs-sum"``, how much has to change at a place, or
            ``"sum"``, signed, in which unlike channels cancel.
        interpolate_mode: of ``captum.attr.LayerAttribution.interpolate``.
        **settings: of ``LayerAdversarialAttribution.attribute``; ``rho`` is in the activations' units.

    Returns:
        A function for ``explain_func=``; attributions have shape (N, 1, ...).

    Raises:
        InvalidInputError, InvalidTypeError: for arguments that cannot be used. The layer and the settings are checked
            with the first explanation.

    Example:
        >>> import numpy as np, torch
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 4, 3, stride=2), torch.nn.Flatten(), torch.nn.Linear(36, 10)
        ... ).eval()
        >>> layer_explain_func("0")(model, np.random.rand(2, 3, 8, 8), np.array([3, 5])).shape
        (2, 1, 8, 8)
    """
    return LayerExplainer(layer, reduce, settings, interpolate_mode)
