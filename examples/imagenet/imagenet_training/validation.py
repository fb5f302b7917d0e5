"""What is measured on the way: accuracy of all validation images, and a quick ARA of a few."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.nn import functional as F
from torch.utils.data import Dataset

from captum_lipschitz import AraResult, MinimumNormAttack, accuracy_robustness_area, margin_radius
from captum_lipschitz.errors import ModelOutputError
from imagenet_training.network import build_network
from imagenet_training.pictures import Draw, loaded, validation_order
from imagenet_training.training import Training


class Validation(NamedTuple):
    """Accuracy and mean loss, and of how many images."""

    accuracy: float
    loss: float
    images: int


def validate(training: Training, pictures: Dataset[Any], count: int, *, workers: int, batch_size: int) -> Validation:
    """Run all images once, shared among the processes; what fills up a share does not count."""
    processes = training.processes
    training.share_buffers()
    order = validation_order(count, rank=processes.rank, processes=processes.size)
    batches = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    module = training.module if training.sharded else training.network
    totals = torch.zeros(3, dtype=torch.float64, device=processes.device)
    module.eval()
    with torch.no_grad(), training.autocast():
        for images, *rest in loaded(pictures, batches, workers=workers, pin=processes.device.type == "cuda"):
            logits = _logits(module(_as_inputs(images, training))).float()
            labels, counted = (part.to(logits.device) for part in rest)
            right = (logits.argmax(1) == labels) & counted
            losses = F.cross_entropy(logits, labels, reduction="none").where(counted, 0)
            totals += torch.stack([right.sum(), losses.sum(), counted.sum()]).double()
    right, loss, seen = processes.total(totals).tolist()
    return Validation(right / seen, loss / seen, int(seen))


def quick_ara(training: Training, pictures: Dataset[Any], count: int, *, images: int) -> AraResult | None:
    """The attack ARA of ``images`` validation images spread over all, by the first process; ``None`` for the others.

    ``None`` also where BatchNorm's averages trail behind so far, as they do at first, that the logits are not finite.
    ``MinimumNormAttack(effort="fast")`` in [0, 1], with the network in float32: a figure to watch, not to publish.
    """
    network = whole_network(training)
    if network is None:
        return None
    chosen = [pictures[Draw(i * count // images, 0)] for i in range(min(images, count))]
    inputs = _as_inputs(torch.stack([image for image, _, _ in chosen]), training)
    labels = torch.tensor([label for _, label, _ in chosen], device=inputs.device)
    attack = MinimumNormAttack(effort="fast", bounds=(0, 1))
    try:
        with torch.random.fork_rng(devices=[]):
            return accuracy_robustness_area(network, (inputs, labels), attack=attack, doubts="off")
    except ModelOutputError:
        return None


def median_radius(training: Training, images: Tensor, labels: Tensor, *, limit: int = 64) -> float | None:
    """Median of ``margin / |grad margin|``, in RMSE, over this process's batch; ``None`` for sharded networks."""
    if training.sharded:
        return None
    inputs = _as_inputs(images[:limit], training)
    try:
        return float(margin_radius(training.network, inputs, labels[:limit].to(inputs.device)).median())
    except ModelOutputError:  # no finite logits in evaluation mode, as BatchNorm's averages trail behind at first
        return None


def whole_network(training: Training) -> nn.Module | None:
    """The first process's network with all its parameters; ``None`` for the others. All must call."""
    if not training.sharded:
        return training.network if training.processes.rank == 0 else None
    state = get_model_state_dict(training.network, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if training.processes.rank > 0:
        return None
    network = build_network(dataclasses.replace(training.recipe, weights=None), training.classes)
    network.load_state_dict(state)
    _copy_activations(training.network, network)
    return network.to(training.processes.device).eval()


def _copy_activations(source: nn.Module, target: nn.Module) -> None:
    """A delta that grows is a number, which no state holds."""
    for name, layer in source.named_modules():
        if hasattr(layer, "delta"):
            parent, _, last = name.rpartition(".")
            setattr(target.get_submodule(parent), last, copy.deepcopy(layer))


def _as_inputs(images: Tensor, training: Training) -> Tensor:
    inputs = images.to(training.processes.device, non_blocking=True).float() / 255
    return inputs.contiguous(memory_format=torch.channels_last) if training.recipe.channels_last else inputs


def _logits(output: Any) -> Tensor:
    return output if isinstance(output, Tensor) else output.logits
