"""BatchNorm's averages estimated anew, against averages taken by hand; and nothing else moved, also on errors."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from strategies import build_convolutional
from torch import Tensor, nn

from captum_lipschitz.errors import InvalidInputError, InvalidTypeError
from captum_lipschitz.training.recalibration import recalibrate_batch_norm


def _batches(count: int = 3, size: int = 8) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 2, 5, 5, generator=generator, dtype=torch.float64) * (i + 1) for i in range(count)]


def _network() -> nn.Module:
    """With dropout, a frozen BatchNorm, and buffers that training mode moves but that are no BatchNorm's."""
    torch.manual_seed(1)
    instance = nn.InstanceNorm2d(2, track_running_stats=True).double()
    return half_frozen(nn.Sequential(instance, nn.BatchNorm2d(2).double(), build_convolutional(0)))


def _others(state: dict[str, Tensor]) -> dict[str, Tensor]:
    names = ("running_mean", "running_var", "num_batches_tracked")
    return {name: value for name, value in state.items() if name.startswith("0.") or not name.endswith(names)}


def test_averages_are_the_mean_over_the_batches() -> None:
    model = nn.Sequential(nn.BatchNorm2d(2, momentum=0.3), nn.Dropout(0.5)).double().eval()
    recalibrate_batch_norm(model, [(batch, "labels") for batch in _batches()])
    channels = [batch.transpose(0, 1).flatten(1) for batch in _batches()]
    torch.testing.assert_close(model[0].running_mean, torch.stack([c.mean(1) for c in channels]).mean(0))
    torch.testing.assert_close(model[0].running_var, torch.stack([c.var(1) for c in channels]).mean(0))
    assert model[0].momentum == 0.3


def test_nothing_but_the_averages_moves() -> None:
    model = _network()
    before, state = snapshot(model), {name: value.clone() for name, value in model.state_dict().items()}
    recalibrate_batch_norm(model, iter(_batches()))
    after, now = snapshot(model), model.state_dict()
    assert not torch.equal(now["1.running_mean"], state["1.running_mean"])
    assert not torch.equal(now["2.1.running_var"], state["2.1.running_var"])
    for name, value in _others(state).items():
        assert torch.equal(now[name], value), name
    del before["buffers"]
    assert_unchanged(before, after)


def _interrupted() -> Iterator[Tensor]:
    yield _batches()[0]
    raise KeyboardInterrupt


@pytest.mark.parametrize("interrupted", [False, True])
def test_after_an_error_everything_is_as_it_was(interrupted: bool) -> None:
    model = nn.Sequential(_network(), Breaking(nn.Identity(), 2, RuntimeError("broken")))
    momenta = [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = snapshot(model)
    with pytest.raises(KeyboardInterrupt if interrupted else RuntimeError):
        recalibrate_batch_norm(model, _interrupted() if interrupted else _batches())
    assert_unchanged(before, snapshot(model))
    assert [m.momentum for m in model.modules() if isinstance(m, nn.BatchNorm2d)] == momenta


@pytest.mark.parametrize(
    ("batches", "error", "message"),
    [
        ([], InvalidInputError, "batches: expected at least one batch of inputs, got none"),
        ([{"image": 1}], InvalidTypeError, "batches: expected tensors, or tuples that start with one, got dict"),
        ([()], InvalidTypeError, "got tuple"),
    ],
)
def test_unusable_batches_leave_the_averages(batches: list[object], error: type[Exception], message: str) -> None:
    model = _network()
    before = snapshot(model)
    with pytest.raises(error, match=message):
        recalibrate_batch_norm(model, batches)
    assert_unchanged(before, snapshot(model))


def test_networks_without_batch_norm_are_left_alone() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))
    before = snapshot(model)
    recalibrate_batch_norm(model, [torch.ones(3, 2)])
    assert_unchanged(before, snapshot(model))
    with pytest.raises(InvalidTypeError, match=r"model: expected an nn\.Module, got int"):
        recalibrate_batch_norm(3, [])  # type: ignore[arg-type]
