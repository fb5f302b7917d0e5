"""Attention in its mathematical form, which can be differentiated twice as the fused ones cannot."""

from __future__ import annotations

from collections.abc import Callable

from torch.backends import cuda

from captum_lipschitz._shared import Shared

# As torch.nn.attention.sdpa_kernel(SDPBackend.MATH) sets them; that saves and restores them for itself.
_FUSED: tuple[tuple[Callable[[], bool], Callable[..., None]], ...] = (
    (cuda.flash_sdp_enabled, cuda.enable_flash_sdp),
    (cuda.mem_efficient_sdp_enabled, cuda.enable_mem_efficient_sdp),
    (cuda.cudnn_sdp_enabled, cuda.enable_cudnn_sdp),
)


def _save() -> Callable[[], None]:
    before = [(switch, enabled()) for enabled, switch in (*_FUSED, (cuda.math_sdp_enabled, cuda.enable_math_sdp))]

    def back() -> None:
        for switch, enabled in before:
            switch(enabled)

    return back


def _choose_math() -> None:
    for _, switch in _FUSED:
        switch(enabled=False)
    cuda.enable_math_sdp(enabled=True)


plain_attention = Shared(_save, _choose_math).within
"""Inside, in all threads, ``scaled_dot_product_attention`` is computed by its formula: torch's choice is global."""
