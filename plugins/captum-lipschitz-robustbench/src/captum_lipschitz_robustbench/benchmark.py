"""``robustbench.eval.benchmark``'s question, answered for every size at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from captum_lipschitz import accuracy_robustness_area, create_attack
from captum_lipschitz.attacks import Attack
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.metrics.masking import Depth
from captum_lipschitz.plugin import AttackLike
from captum_lipschitz_robustbench.images import DATASETS, check_images, load_images
from captum_lipschitz_robustbench.result import BenchmarkAra

NORMS = {"Linf": "linf", "L2": "l2"}
UNIT_BOX = (0.0, 1.0)
EPSILONS = {
    ("cifar10", "Linf"): 8 / 255,
    ("cifar10", "L2"): 0.5,
    ("cifar100", "Linf"): 8 / 255,
    ("imagenet", "Linf"): 4 / 255,
}
"""The sizes of RobustBench's leaderboards."""


def benchmark_ara(
    model: nn.Module,
    *,
    n_examples: int | None = None,
    dataset: str = "cifar10",
    threat_model: str = "Linf",
    data: tuple[Tensor, Tensor] | None = None,
    model_name: str | None = None,
    data_dir: str | Path = "./data",
    preprocessing: str | Callable[..., Any] | None = None,
    eps: float | None = None,
    batch_size: int = 32,
    device: torch.device | str | None = None,
    attack: AttackLike | str = "minimum_norm",
    chance: str | float = "uniform",
    doubts: Depth = "quick",
    generator: torch.Generator | None = None,
    show_progress: bool = False,
) -> BenchmarkAra:
    """The ARA of a model in the zoo's form, and its robust accuracy at RobustBench's size.

    Arguments shared with ``robustbench.eval.benchmark`` have its names and mean the same, so the two can be run with
    the same ones and their figures put side by side.

    Args:
        model: what ``robustbench.utils.load_model`` returns, or any that takes images (N, 3, H, W) in [0, 1],
            normalises by itself and returns logits. It is run in evaluation mode, left as it was and not moved.
        n_examples: the first images of the test set; ``None`` for all that the leaderboard may use.
        dataset: ``"cifar10"``, ``"cifar100"`` or ``"imagenet"``, or the member of RobustBench's enumeration.
        threat_model: ``"Linf"`` or ``"L2"``, which is the norm of the distances, or the enumeration's member.
        data: ``(images, labels)`` in place of RobustBench's; ``dataset`` then only tells the usual ``eps``.
        model_name: the zoo's name, of ImageNet models whose preprocessing is asked for.
        data_dir: where the data set is. RobustBench downloads CIFAR to it where it is not there.
        preprocessing: a transform, or RobustBench's name of one; for ImageNet.
        eps: size at which the robust accuracy is read; ``None`` is the leaderboard's.
        batch_size: images attacked at once.
        device: where images go: the model's device; ``None`` asks the model.
        attack: a minimal attack by its name, made with the threat model's norm and the box [0, 1], or an object.
        chance: see ``accuracy_robustness_area``, as all that follows.
        doubts: how closely to look for reasons to doubt the area.
        generator: source of the bootstrap's draws.
        show_progress: a progress bar over the images.

    Returns:
        A ``BenchmarkAra``: its ``ara`` is an ``AraResult`` with its interval, its ``robust_accuracy`` an upper bound.

    Raises:
        InvalidInputError, InvalidTypeError: for arguments that cannot be used, images outside [0, 1] among them.
        UnknownNameError: there is no attack of that name.
        MissingDependencyError: RobustBench's images are asked for and it cannot be imported.

    Example:
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> images = torch.rand(16, 3, 8, 8)
        >>> result = benchmark_ara(model, data=(images, model(images).argmax(1)), threat_model="L2", eps=0.1)
        >>> result.robust_accuracy == float(result.ara.curve(0.1))
        True
        >>> result.ara.norm
        'l2'

    References:
        Croce et al. 2021, arXiv 2010.09670 (RobustBench); Woods, Chen and Teuscher 2019, arXiv 1906.02896 (ARA).
    """
    dataset, threat_model = _value(dataset), _value(threat_model)
    if not isinstance(model, nn.Module):
        raise InvalidTypeError(f"model: expected a torch.nn.Module, got {type(model).__name__}")
    _check_names(dataset, threat_model)
    size = _epsilon(dataset, threat_model, eps)
    if not isinstance(batch_size, int) or batch_size < 1:
        raise InvalidInputError(f"batch_size: expected at least 1, got {batch_size!r}")
    chosen = _attack(attack, threat_model)
    if data is None:
        data = load_images(
            dataset,
            threat_model,
            n_examples=n_examples,
            data_dir=data_dir,
            model_name=model_name,
            preprocessing=preprocessing,
        )
        source: str | None = dataset
    else:
        source = None
        if n_examples is not None and (type(n_examples) is not int or n_examples < 1):
            raise InvalidInputError(f"n_examples: expected at least 1, or None for all, got {n_examples!r}")
    images, labels = (part[:n_examples] for part in check_images(data, model))
    ara = accuracy_robustness_area(
        model,
        list(zip(images.split(batch_size), labels.split(batch_size), strict=True)),
        attack=chosen,
        bounds=UNIT_BOX,
        norm=NORMS[threat_model],
        chance=chance,
        device=device,
        generator=generator,
        doubts=doubts,
        show_progress=show_progress,
    )
    return BenchmarkAra(ara, float(ara.curve(size)), size, threat_model, source)


def _value(name: Any) -> Any:
    """RobustBench takes names and members of its enumerations."""
    return getattr(name, "value", name)


def _check_names(dataset: str, threat_model: str) -> None:
    if dataset not in DATASETS:
        raise InvalidInputError(f"dataset: expected one of {list(DATASETS)}, got {dataset!r}")
    if str(threat_model).startswith("corruptions"):
        raise InvalidInputError(
            f"threat_model: expected 'Linf' or 'L2', got {threat_model!r}; corruptions have no size to find a smallest "
            "of"
        )
    if threat_model not in NORMS:
        raise InvalidInputError(f"threat_model: expected one of {list(NORMS)}, got {threat_model!r}")


def _epsilon(dataset: str, threat_model: str, eps: float | None) -> float:
    if eps is None:
        if (dataset, threat_model) not in EPSILONS:
            raise InvalidInputError(
                f"eps: expected a size, as RobustBench has no usual one for {dataset} and {threat_model}, got None"
            )
        return EPSILONS[dataset, threat_model]
    if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0 < eps < float("inf"):
        raise InvalidInputError(f"eps: expected a positive number, got {eps!r}")
    return float(eps)


def _attack(attack: AttackLike | str, threat_model: str) -> AttackLike:
    """An attack in the threat model's norm: another one's answers would not be the smallest in it."""
    norm = NORMS[threat_model]
    if isinstance(attack, str):
        return create_attack(attack, norm=norm, bounds=UNIT_BOX)
    if isinstance(attack, Attack) and attack.norm.name != norm:
        raise InvalidInputError(
            f"attack: expected one in the norm of {threat_model}, {norm!r}, got one in {attack.norm.name!r}"
        )
    return attack
