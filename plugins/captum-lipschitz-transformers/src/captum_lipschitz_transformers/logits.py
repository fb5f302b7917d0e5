"""A Hugging Face model as this library's functions call one: inputs in, logits out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz.errors import InvalidTypeError, ModelOutputError


class LogitsNetwork(nn.Module):
    """Maps inputs (N, ...) to the logits (N, C) of a model that takes keywords and returns an object with ``logits``.

    For ``accuracy_robustness_area``, attacks and attributions, and for ``RegularizedModule``. Attention is run in its
    mathematical form, which can be differentiated twice.

    Args:
        model: such as a ``ViTForImageClassification``.
        input_name: the keyword of its inputs; ``None`` for its ``main_input_name``, ``"pixel_values"`` where it has
            none.
        keywords: further ones for the model, in every call.

    Raises:
        InvalidTypeError: the model is no ``nn.Module``.
        ModelOutputError: in a call, it returned no logits.

    Example:
        >>> import torch
        >>> from transformers import ViTConfig, ViTForImageClassification
        >>> config = ViTConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        ...                    image_size=8, patch_size=4, num_labels=3)
        >>> LogitsNetwork(ViTForImageClassification(config))(torch.rand(2, 3, 8, 8)).shape
        torch.Size([2, 3])
    """

    def __init__(self, model: nn.Module, *, input_name: str | None = None, **keywords: Any) -> None:
        super().__init__()
        if not isinstance(model, nn.Module):
            raise InvalidTypeError(f"model: expected an nn.Module, got {type(model).__name__}")
        self.model = model
        self.input_name = input_name or getattr(model, "main_input_name", None) or "pixel_values"
        self.keywords = keywords
        self.training = model.training

    def forward(self, inputs: Tensor) -> Tensor:
        """The model's logits, (N, C), of inputs (N, ...)."""
        with sdpa_kernel(SDPBackend.MATH):
            output = self.model(**{self.input_name: inputs}, **self.keywords)
        logits = output.get("logits") if isinstance(output, Mapping) else getattr(output, "logits", output)
        if not isinstance(logits, Tensor):
            raise ModelOutputError(f"model: expected logits, (N, C), or an object with logits, got {type(output)}")
        return logits


@contextmanager
def without_autocast(model: nn.Module) -> Iterator[None]:
    """Inside, the model runs in its parameters' precision, also where Accelerate has put autocast around it.

    That stands in the place of ``model.forward``, with the original beside it.
    """
    own = model.__dict__
    if "_original_forward" not in own or "forward" not in own:
        yield
        return
    wrapped = own["forward"]
    own["forward"] = own["_original_forward"]
    try:
        yield
    finally:
        own["forward"] = wrapped
