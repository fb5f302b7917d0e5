"""Attention in its mathematical form, which can be differentiated twice as the fused ones cannot."""

from __future__ import annotations

from functools import partial

from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz._shared import Shared

plain_attention = Shared(partial(sdpa_kernel, SDPBackend.MATH)).within
"""Inside, in all threads, ``scaled_dot_product_attention`` is computed by its formula: torch's choice is global."""
