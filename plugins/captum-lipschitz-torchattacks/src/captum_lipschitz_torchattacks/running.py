"""One run of a class of torchattacks on some of a problem's images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from captum_lipschitz.attacks import Problem
from captum_lipschitz.attacks.bisection import precise
from captum_lipschitz_torchattacks.base import torchattacks
from captum_lipschitz_torchattacks.entry import Entry
from captum_lipschitz_torchattacks.random_state import seeded
from captum_lipschitz_torchattacks.shown_model import ShownModel


def run(
    entry: Entry,
    problem: Problem,
    arguments: Mapping[str, Any],
    *,
    sizes: Tensor | None = None,
    step_size: float = 0.0,
    logits_factor: Tensor | None = None,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """Attack all images, together or one at a time as the class needs it.

    Args:
        entry: which class.
        problem: of n images.
        arguments: of the class, but for its size and step.
        sizes: (n,), in the class's unit; ``None`` for a class without a size.
        step_size: relative to the size.
        logits_factor: what each image's logits are multiplied by, (n,).
        seed: of the global random states; the same for each image that is attacked alone.

    Returns:
        Perturbations, (n, ...), not looked at yet, and backward passes of each image, (n,).
    """
    dtype = torch.float32 if entry.float32 else precise(problem.inputs[:1]).dtype
    parts = [slice(None)] if not entry.alone else [slice(i, i + 1) for i in range(len(problem))]
    perturbations, spent = [], []
    for part in parts:
        index = torch.arange(len(problem), device=problem.inputs.device)[part]
        some = problem.rows(index) if entry.alone else problem
        factor = 1.0 if logits_factor is None else logits_factor[part][:, None].to(dtype)
        model = ShownModel(some, dtype=dtype, logits_factor=factor, lift_logits=entry.lift_logits)
        known = dict(arguments)
        if sizes is not None:
            known |= _sized(entry, sizes[part].to(dtype), step_size)
        with seeded(seed, some.inputs.device):
            images = _attack(entry, model, some, known)
        perturbations.append(model.perturbations(images))
        spent.append(torch.full((len(some),), model.backward_passes, device=index.device))
    return torch.cat(perturbations), torch.cat(spent)


def _attack(entry: Entry, model: ShownModel, problem: Problem, arguments: Mapping[str, Any]) -> Tensor:
    own = {name: value for name, value in arguments.items() if name not in entry.member_settings}
    attack = getattr(torchattacks(), entry.name)(model, **own)
    for name in entry.member_settings:
        for member in attack._autoattack.attacks:  # noqa: SLF001 - it has no argument for them
            if hasattr(member, name):
                setattr(member, name, arguments[name])
    labels = problem.labels
    if entry.toward_runner_up:
        attack.set_mode_targeted_by_label(quiet=True)
        logits = problem.logits(torch.zeros_like(problem.inputs))
        labels = logits.scatter(1, labels[:, None], -torch.inf).argmax(1)
    images: Tensor = attack(model.images(), labels)
    return images


def _sized(entry: Entry, sizes: Tensor, step_size: float) -> dict[str, Any]:
    """The arguments that say how large: a tensor of one size per image, or a number where the class knows only one."""
    if entry.alone:
        size = float(sizes)
        return {entry.size: size} | ({entry.step: step_size * size} if entry.step else {})
    shaped = sizes[:, None, None, None]
    found = {entry.size: sizes if entry.flat_size else shaped}
    return found | ({entry.step: step_size * shaped} if entry.step else {})
