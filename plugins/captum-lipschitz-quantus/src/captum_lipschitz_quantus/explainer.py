"""What Quantus calls: arrays in, arrays out, the model left as it was."""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from captum_lipschitz._trace import no_trace, settled
from captum_lipschitz.errors import CaptumLipschitzWarning, InvalidInputError, InvalidTypeError
from captum_lipschitz_quantus.arrays import to_inputs, to_targets

REDUCTIONS = ("sum", "abs-sum", None)
_OURS = ("inputs", "target", "return_convergence_delta")


@dataclass(frozen=True)
class Explainer(ABC):
    """An explanation function in the form of ``quantus.explain``: base of what the makers of this package return.

    It holds names and settings only, no model: it can be pickled and copied, and Quantus may call it with copies of the
    model that it has randomised.

    Attributes:
        name: of the attribution, or of the layer.
        reduce: what becomes of the channels.
        settings: of the attribution's ``attribute``.
    """

    name: str
    reduce: Literal["sum", "abs-sum"] | None
    settings: Mapping[str, Any]

    def __post_init__(self) -> None:
        if self.reduce not in REDUCTIONS:
            raise InvalidInputError(f"reduce: expected one of {list(REDUCTIONS)}, got {self.reduce!r}")
        for setting in _OURS:
            if setting in self.settings:
                raise InvalidInputError(
                    f"settings: expected those of the attribution, got {setting!r}, which Quantus or this plugin gives"
                )

    def __hash__(self) -> int:
        """Of names alone: settings may hold tensors and lists. Explainers that are equal have one hash."""
        return hash((type(self), self.name, self.reduce, frozenset(self.settings)))

    def __call__(
        self,
        model: nn.Module,
        inputs: NDArray[Any] | Tensor,
        targets: NDArray[Any] | Tensor | int,
        *,
        device: torch.device | str | None = None,
        method: str | None = None,
        **explain_func_kwargs: Any,
    ) -> NDArray[Any]:
        """Explain a batch.

        Args:
            model: of logits, (N, C). It is run in evaluation mode and left as it was: modes, gradients, buffers.
            inputs: (N, C, ...), channels first, or (N, features). They are not changed.
            targets: the classes to explain, integers, (N,) or one for all.
            device: where the model is; ``None`` asks its parameters. The model is not moved.
            method: not used. ``quantus.evaluate`` gives the name of the row in its table.
            **explain_func_kwargs: none. Settings are given to the maker, once, so that a metric cannot be run with
                other ones than its explanations were made with.

        Returns:
            The attributions: float32 (float64 of a float64 model), signed, of the inputs' shape or with one channel.

        Raises:
            InvalidInputError, InvalidTypeError: for arguments or settings that cannot be used.

        Warns:
            CaptumLipschitzWarning: some attributions are zero everywhere, or the model ends in a softmax.
        """
        del method
        _refuse(explain_func_kwargs)
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
        _warn_of_softmax(model)
        images = to_inputs(inputs, model, device)
        classes = to_targets(targets, images)
        with settled(), no_trace(model, images):
            found = self.explain(model, images, classes).detach()
        _warn_of_zeros(found, self)
        found = found if found.dtype == torch.float64 else found.float()
        return np.ascontiguousarray(found.cpu().numpy())

    @abstractmethod
    def explain(self, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        """Attributions of (N, ...) inputs toward (N,) targets; the model is in evaluation mode."""

    def attributed(self, attribute: Callable[..., object], inputs: Tensor, targets: Tensor) -> Tensor:
        """What ``attribute`` returns with the settings, which must be one tensor of N rows.

        Raises:
            InvalidInputError, InvalidTypeError: for a setting that it does not have, or another answer.
        """
        signature = inspect.signature(attribute)
        try:
            signature.bind(inputs, target=targets, **self.settings)
        except TypeError as error:
            known = [setting for setting in signature.parameters if setting not in _OURS]
            raise InvalidInputError(f"settings: expected any of {known} for {self.name!r}, {error}") from error
        found = attribute(inputs, target=targets, **self.settings)
        if not isinstance(found, Tensor):
            raise InvalidTypeError(f"{self.name!r}: expected it to return one tensor, got {type(found).__name__}")
        return found


def over_channels(attributions: Tensor, reduce: Literal["sum", "abs-sum"] | None) -> Tensor:
    """(N, C, ...) with its channels summed, (N, 1, ...); rows of features, (N, F), stay as they are."""
    if reduce is None or attributions.dim() < 3:
        return attributions
    return (attributions.abs() if reduce == "abs-sum" else attributions).sum(1, keepdim=True)


def _refuse(given: Mapping[str, Any]) -> None:
    """Everything that Quantus does not put there by itself; ``channel_first=True`` says what is so anyway."""
    rest = {key: value for key, value in given.items() if (key, value) not in _HARMLESS}
    if not rest:
        return
    if "softmax" in rest:
        raise InvalidInputError(
            f"softmax: expected None or False, got {rest['softmax']!r}; the change is sought on the model's logits"
        )
    if "channel_first" in rest:
        raise InvalidInputError(
            f"channel_first: expected True, got {rest['channel_first']!r}; a torch model takes channels first, and "
            "so do Quantus's metrics of one: turn the images"
        )
    raise InvalidInputError(
        f"explain_func_kwargs: expected none, got {sorted(rest)}; give settings to the maker, as in "
        "explain_func('adversarial', rho=0.05). In quantus.evaluate a row that is a dict leaves its settings to the "
        "rows after it: put {'Saliency': quantus.explain} in its place, or the row last"
    )


_HARMLESS = [("softmax", None), ("softmax", False), ("channel_first", None), ("channel_first", True)]


def _warn_of_softmax(model: nn.Module) -> None:
    *_, last = model.modules()
    if isinstance(last, nn.Softmax):
        warnings.warn(
            "model: expected one of logits, its last module is a Softmax; probabilities saturate, so changes come out "
            "weak or wrong. Give Quantus the model without it",
            CaptumLipschitzWarning,
            stacklevel=3,
        )


def _warn_of_zeros(found: Tensor, explainer: Explainer) -> None:
    zero = int((found.flatten(1) == 0).all(1).sum())
    if zero:
        warnings.warn(
            f"{explainer.name!r}: {zero} of {len(found)} attributions are zero everywhere (the decision is there "
            "already, nothing was found, or there is no gradient); scores of them mean nothing",
            CaptumLipschitzWarning,
            stacklevel=3,
        )
