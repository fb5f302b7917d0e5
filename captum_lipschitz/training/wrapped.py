"""The network that an attack in training runs, inside what a training loop wrapped around it."""

from __future__ import annotations

import sys

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training.module import RegularizedModule
from captum_lipschitz.training.processes import number_of_processes


def attacked_network(model: nn.Module) -> nn.Module:
    """The network that maps images to logits, inside what training wrapped around it."""
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(
            f"model: expected an nn.Module, whose running averages can be put back, got {type(model).__name__}"
        )
    inner: object = None
    if isinstance(model, DistributedDataParallel):
        inner = model.module
    elif type(model).__name__ == "OptimizedModule":  # importing torch._dynamo for its type takes seconds
        inner = model._orig_mod  # noqa: SLF001
    elif isinstance(model, RegularizedModule):
        inner = model.model
    return attacked_network(inner) if isinstance(inner, nn.Module) else model


def refuse_waiting(network: nn.Module, *, batch_statistics: bool) -> None:
    """Raise where processes would wait for each other: they make different numbers of passes."""
    if number_of_processes() == 1:
        return
    fsdp = sys.modules.get("torch.distributed.fsdp")  # whoever shards has imported it
    sharded = tuple(filter(None, (getattr(fsdp, name, None) for name in ("FSDPModule", "FullyShardedDataParallel"))))
    if any(isinstance(module, sharded) for module in network.modules()):
        raise InvalidInputError(
            "model: expected whole parameters in every process, got a network sharded by FSDP, whose passes gather "
            "them from all; processes make different numbers of passes, and would wait forever; "
            "use DistributedDataParallel"
        )
    if batch_statistics and any(isinstance(m, nn.SyncBatchNorm) and m.training for m in network.modules()):
        raise InvalidInputError(
            "batch_statistics: expected False for a network with SyncBatchNorm in several processes: they make "
            "different numbers of passes, and would wait forever for each other's statistics"
        )
