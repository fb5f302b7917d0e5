"""Fully sharded models: parameters are kept between the penalty's gradient and the backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def parameters_kept(module: nn.Module) -> Iterator[None]:
    """Inside, a gradient through layers under ``fully_shard`` neither frees their parameters nor exchanges anything.

    It would do both after each layer, as if it were the backward pass; but the backward pass is still to come and needs
    the very parameters. They are freed after that one. Without ``fully_shard`` nothing happens.
    """
    if torch.compiler.is_compiling():
        yield  # CompiledPenalty refuses layers that are sharded one by one
        return
    groups = [group for layer in module.modules() for group in _parameter_groups(layer)]
    before = [(group.reduce_grads, group.reshard_after_backward) for group in groups]
    try:
        for group in groups:
            group.reduce_grads = group.reshard_after_backward = False
        yield
    finally:
        for group, (reduces, reshards) in zip(groups, before, strict=True):
            group.reduce_grads, group.reshard_after_backward = reduces, reshards


def trained_parameters(module: nn.Module) -> list[nn.Parameter]:
    """The parameters that an optimiser steps: under ``fully_shard`` the shards, also where they are gathered now."""
    groups = [group for layer in module.modules() for group in _parameter_groups(layer)]
    shards = [parameter.sharded_param for group in groups for parameter in group.fsdp_params]
    return [parameter for parameter in shards or module.parameters() if parameter.requires_grad]


def is_sharded(module: nn.Module) -> bool:
    """Whether ``fully_shard`` was applied to this very module."""
    return hasattr(module, "_get_fsdp_state")


def _parameter_groups(layer: nn.Module) -> list[Any]:
    if not is_sharded(layer):
        return []
    state = layer._get_fsdp_state()  # type: ignore[operator]  # noqa: SLF001 (set_... exist, but nothing reads back)
    groups = getattr(state, "_fsdp_param_groups", None)
    if groups is None:
        groups = [state._fsdp_param_group]  # noqa: SLF001 (torch before 2.12)
    return [group for group in groups if group is not None]
