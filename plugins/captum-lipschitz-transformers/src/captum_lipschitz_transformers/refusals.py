"""What a Trainer may be asked for under which the penalty's gradient would be wrong, or was never compared."""

from __future__ import annotations

from typing import Any

from torch import nn
from transformers import Trainer

from captum_lipschitz.errors import UnsupportedTrainingError
from captum_lipschitz.training import LipschitzRegularizer

_ATTENTION = (None, "eager", "sdpa")  # sdpa is run in its mathematical form


def refuse_unsupported(trainer: Trainer, regularizer: LipschitzRegularizer) -> None:
    """Raise where the penalty's gradient would be wrong, or was never compared.

    Args:
        trainer: as it is made, or when training begins.
        regularizer: the one that is added.

    Raises:
        UnsupportedTrainingError: names the setting and the way that works.
    """
    model = trainer.accelerator.unwrap_model(trainer.model)
    reason = _of_arguments(trainer) or _of_processes(trainer) or _of_model(model, regularizer)
    if reason is not None:
        raise UnsupportedTrainingError(reason)


def _of_arguments(trainer: Trainer) -> str | None:
    args = trainer.args
    if args.torch_compile:
        return (
            "torch_compile: expected False, as a graph compiled from outside has no second derivative; train "
            "uncompiled, or in a loop of your own with RegularizedModule(LogitsNetwork(model), regularizer).compile()"
        )
    if args.use_liger_kernel:
        return "use_liger_kernel: expected False, as its kernels have no second derivative"
    if args.ddp_static_graph:
        return (
            "ddp_static_graph: expected False, as a gradient taken through a static graph starts the exchange between "
            "processes too early"
        )
    return None


def _of_processes(trainer: Trainer) -> str | None:
    kind = trainer.accelerator.distributed_type.value
    if kind != "NO" and not kind.startswith("MULTI_"):
        return (
            f"distributed training: expected one process or DistributedDataParallel, got {kind}, with which the "
            "penalty's gradient has not been compared; leave fsdp and deepspeed out and start with torchrun"
        )
    if trainer.args.n_gpu > 1:
        return (
            f"n_gpu: expected one GPU per process, got {trainer.args.n_gpu}, for which the Trainer takes DataParallel; "
            "start with torchrun --nproc_per_node, or say which GPU in CUDA_VISIBLE_DEVICES"
        )
    if trainer.args.parallelism_config is not None or trainer.is_distributed_loading_by_transformers:
        return "parallelism_config: expected None, as the penalty's gradient has not been compared with a sharded model"
    return None


def _of_model(model: nn.Module, regularizer: LipschitzRegularizer) -> str | None:
    for layer in model.modules():
        attention = getattr(getattr(layer, "config", None), "_attn_implementation", None)
        if attention not in _ATTENTION:
            return (
                f"attention: expected 'eager' or 'sdpa', got {attention!r}, which has no second derivative; "
                "model.set_attn_implementation('sdpa')"
            )
    kind: Any = getattr(getattr(model, "config", None), "problem_type", None)
    if kind == "regression":
        return "problem_type: expected classification, got 'regression', for which the penalty has no classes"
    if kind is not None and (kind == "multi_label_classification") != regularizer.multi_label:
        return (
            f"problem_type: {kind!r} expected LipschitzRegularizer(multi_label={not regularizer.multi_label}), got "
            f"multi_label={regularizer.multi_label}"
        )
    return None
