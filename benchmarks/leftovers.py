"""What the garbage collector does not see of what calls leave behind: hooks, and memory that the C library gave out."""

from __future__ import annotations

import ctypes

from torch import nn

_MODULE_HOOKS = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks",
    "_state_dict_pre_hooks", "_load_state_dict_pre_hooks", "_load_state_dict_post_hooks",
)  # fmt: skip
_GLOBAL_HOOKS = (
    "_global_forward_hooks", "_global_forward_pre_hooks", "_global_backward_hooks", "_global_backward_pre_hooks",
    "_global_module_registration_hooks", "_global_parameter_registration_hooks", "_global_buffer_registration_hooks",
)  # fmt: skip
_PARAMETER_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


def hooks_of(model: nn.Module) -> int:
    """Hooks of every kind on modules and parameters, and on all modules that there are."""
    tables = [getattr(module, name) for module in model.modules() for name in _MODULE_HOOKS]
    tables += [getattr(parameter, name) or () for parameter in model.parameters() for name in _PARAMETER_HOOKS]
    tables += [getattr(nn.modules.module, name) for name in _GLOBAL_HOOKS]
    return sum(map(len, tables))


class _Given(ctypes.Structure):
    """What glibc's ``mallinfo2`` returns."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"
        )
    ]  # fmt: skip


def given_out() -> float:
    """KiB that the C library has given out and not got back; 0 where it does not tell."""
    try:
        tell = ctypes.CDLL(None).mallinfo2
    except (AttributeError, TypeError, OSError):
        return 0.0
    tell.restype = _Given
    given = tell()
    return float(given.uordblks + given.hblkhd) / 1024
