"""What an explanation costs: its steps, no waiting for the device between them, no work per example."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from strategies import build_batch, build_convolutional
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from captum_lipschitz import (
    AdversarialAttribution,
    ContrastiveAdversarialAttribution,
    LayerAdversarialAttribution,
)

WAITING = {"aten._local_scalar_dense.default", "aten.is_nonzero.default", "aten.equal.default", "aten.nonzero.default"}


class Counted(TorchDispatchMode):
    """Every operation that reaches a device, by name."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls[str(func)] += 1
        return func(*args, **(kwargs or {}))

    @property
    def waits(self) -> int:
        return sum(count for name, count in self.calls.items() if name in WAITING)


def input_attribution(model: nn.Module) -> Any:
    return AdversarialAttribution(model)


def contrastive(model: nn.Module) -> Any:
    return ContrastiveAdversarialAttribution(model)


def layered(model: nn.Module) -> Any:
    return LayerAdversarialAttribution(model, model[0])  # type: ignore[index]


METHODS = pytest.mark.parametrize("method", [input_attribution, contrastive, layered])


def operations(method: Callable[[nn.Module], Any], size: int, n_steps: int, target: Any) -> Counted:
    model = build_convolutional(0)
    inputs, _ = build_batch(0, size)
    mask, scale = torch.ones(5, 5), torch.full((5, 5), 2.0)
    with Counted() as counted:
        method(model).attribute(
            inputs, target, n_steps=n_steps, bounds=(-2.0, 2.0), mask=mask, scale=scale, momentum=0.5
        )
    return counted


@METHODS
@pytest.mark.parametrize("listed", [False, True])
def test_nothing_waits_between_the_steps_and_nothing_is_done_for_each_example(method: Any, listed: bool) -> None:
    def target(size: int) -> Any:
        return [1, 2, 0, 3, 1, 1, 2][:size] if listed else 1

    few, more = operations(method, 2, 3, target(2)), operations(method, 2, 8, target(2))
    assert few.waits == more.waits > 0
    crowd, crowd_more = operations(method, 7, 3, target(7)), operations(method, 7, 8, target(7))
    added, added_in_a_crowd = more.calls - few.calls, crowd_more.calls - crowd.calls
    assert added == added_in_a_crowd


@METHODS
def test_it_costs_its_steps_and_for_a_layer_one_forward_pass_more(method: Any) -> None:
    model = build_convolutional(0)
    inputs, labels = build_batch(0, 4)
    passes: Counter[str] = Counter()

    def forward(_: Any, __: Any, output: Tensor) -> None:
        passes["forward"] += 1
        if output.requires_grad:
            output.register_hook(lambda _: passes.update(["backward"]))

    model.register_forward_hook(forward)
    method(model).attribute(inputs, labels, n_steps=6)
    assert passes == {"forward": 7 if method is layered else 6, "backward": 6}


def test_all_classes_of_an_image_are_one_batch() -> None:
    model = build_convolutional(0)
    images, _ = build_batch(0, 2)
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, inputs: sizes.append(len(inputs[0])))
    method = AdversarialAttribution(model)
    mask = torch.zeros(2, 2, 5, 5)
    mask[0, :, 1:], mask[1, :, :4] = 1, 1
    every, delta = method.attribute_classes(images, n_steps=5, mask=mask, return_convergence_delta=True)
    assert sizes[-5:] == [8] * 5
    assert every.shape == (2, 4, 2, 5, 5)
    assert delta.shape == (2, 4)
    for i in range(2):
        for k in range(4):
            alone = method.attribute(images[i : i + 1], k, n_steps=5, mask=mask[i])
            torch.testing.assert_close(every[i, k], alone[0], rtol=1e-6, atol=1e-9)
    contrast = ContrastiveAdversarialAttribution(model)
    against = contrast.attribute_classes(images, [3, 1], baseline_target=[0, 2], n_steps=5)
    for i, other in enumerate([0, 2]):
        for k, number in enumerate([3, 1]):
            alone = contrast.attribute(images[i : i + 1], number, baseline_target=other, n_steps=5)
            torch.testing.assert_close(against[i, k], alone[0], rtol=1e-6, atol=1e-9)
    single = method.attribute_classes(images[:1], [3, 1], n_steps=5, mask=mask[0])
    torch.testing.assert_close(
        single[0, 1], method.attribute(images[:1], 1, n_steps=5, mask=mask[0])[0], rtol=1e-6, atol=1e-9
    )
    sizes.clear()
    some = method.attribute_classes(images, [3, 1], n_steps=5, mask=mask, internal_batch_size=3)
    assert sizes[-10:] == [3] * 5 + [1] * 5
    torch.testing.assert_close(some, every[:, [3, 1]], rtol=1e-6, atol=1e-9)


def test_each_example_may_have_classes_of_its_own() -> None:
    images, _ = build_batch(0, 2)
    method = AdversarialAttribution(build_convolutional(0))
    every = method.attribute_classes(images, n_steps=5)
    same = method.attribute_classes(images, torch.tensor([2, 0]), n_steps=5)
    torch.testing.assert_close(same, every[:, [2, 0]], rtol=1e-6, atol=1e-9)
    own = torch.tensor([[1, 3], [2, 0]])
    for some in (own, own.tolist()):
        differing = method.attribute_classes(images, some, n_steps=5)
        torch.testing.assert_close(differing, torch.stack([every[0, [1, 3]], every[1, [2, 0]]]), rtol=1e-6, atol=1e-9)


def test_classes_of_several_inputs_with_arguments_of_their_own() -> None:
    model = build_convolutional(0)
    a, _ = build_batch(0, 3)
    b, _ = build_batch(1, 3)
    shift = torch.rand(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def both(x: Tensor, y: Tensor, own: Tensor, factor: float) -> Tensor:
        return factor * model(x * y) + own * (x * y).mean((1, 2, 3))[:, None]

    method = AdversarialAttribution(both)
    parts = method.attribute_classes((a, b), [2, 0], (shift, 0.5), n_steps=4, rho=(0.1, 0.2))
    assert [tuple(part.shape) for part in parts] == [(3, 2, 2, 5, 5)] * 2
    for k, number in enumerate([2, 0]):
        alone = method.attribute((a, b), number, (shift, 0.5), n_steps=4, rho=(0.1, 0.2))
        for ours, theirs in zip(parts, alone, strict=True):
            torch.testing.assert_close(ours[:, k], theirs, rtol=1e-6, atol=1e-9)
