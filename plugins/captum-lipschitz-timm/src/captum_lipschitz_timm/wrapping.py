"""What a network may be wrapped in and made of, so that the penalty's gradient is right."""

from __future__ import annotations

from typing import Any

from timm.task import TrainingTask
from torch import nn
from torch._dynamo.eval_frame import OptimizedModule
from torch.nn.parallel import DataParallel, DistributedDataParallel

from captum_lipschitz.errors import UnsupportedTrainingError
from captum_lipschitz_timm.activations import activations


def trainable(task: TrainingTask) -> nn.Module:
    """The module that a task trains, refused where the penalty's gradient would be wrong or cannot be had.

    Args:
        task: any of timm's.

    Raises:
        UnsupportedTrainingError: names the way that works.
    """
    found: nn.Module | None = task.get_trainable_module()
    if found is None:
        raise UnsupportedTrainingError("task: expected one with a trainable module, got none")
    module: Any = found
    if isinstance(module, DataParallel):
        raise UnsupportedTrainingError("task: expected one device or DistributedDataParallel, got DataParallel")
    if isinstance(module, DistributedDataParallel):
        if module.static_graph:
            raise UnsupportedTrainingError(
                "static_graph: expected False, since the penalty's own gradient runs through the graph first, got True"
            )
        module = module.module
    if isinstance(module, OptimizedModule) or getattr(module, "_compiled_call_impl", None) is not None:
        raise UnsupportedTrainingError(
            "task: expected a network that is not compiled, as a compiled one cannot be differentiated twice; "
            "train without --torchcompile"
        )
    return found


def refuse_other_averages(task: TrainingTask) -> None:
    """Refuse averaged weights (``setup_ema``) in a network with other activations than the trained one has.

    ``setup_ema`` copies the network as it is. When activations are replaced afterwards, weights of one network are
    evaluated and saved as another's, and nothing else tells.

    Args:
        task: any of timm's, with averaged weights or without.

    Raises:
        UnsupportedTrainingError: names the order that works.
    """
    if not task.has_ema():
        return
    averages: Any = task.get_trainable_module(ema=True)
    ours = activations(_bare(task.get_trainable_module()))
    theirs = activations(_bare(getattr(averages, "module", averages)))
    other = sorted(path for path in {*ours, *theirs} if ours.get(path) != theirs.get(path))
    if other:
        path = other[0]
        raise UnsupportedTrainingError(
            f"task: expected averaged weights (setup_ema) of a network with the same activations, but {len(other)} "
            f"differ: {path} is {ours.get(path, 'none')} in the trained network and {theirs.get(path, 'none')} in the "
            "averaged one; call with_half_huber before task.setup_ema()"
        )


def _bare(module: Any) -> nn.Module:
    inner: nn.Module = module.module if isinstance(module, (DataParallel, DistributedDataParallel)) else module
    return inner


def unfuse_attention(module: nn.Module) -> list[Any]:
    """Have timm's attention modules compute in the form that can be differentiated twice.

    Within a context (``sdpa_kernel``) it would be the fused form again where checkpointed parts of a network are run
    once more, in the loop's own backward pass.

    Args:
        module: a task's trainable module.

    Returns:
        The submodules that were changed.
    """
    changed: list[Any] = [one for one in module.modules() if getattr(one, "fused_attn", False) is True]
    for one in changed:
        one.fused_attn = False
    return changed
