"""AdversarialTraining in other precisions, wrapped networks and several processes, and what it refuses."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adversaries import ATTACKS, FIXED, batch, chosen, flat_network, generator, network
from contracts import assert_unchanged, snapshot
from strategies import build_batch
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import (
    FixedSizeAttack,
    LipschitzRegularizer,
    MinimumNormAttack,
    PaperAttack,
    Reaches,
    RegularizedModule,
)
from captum_lipschitz.attacks import Attack
from captum_lipschitz.errors import DisconnectedModelError, InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.training.adversarial import AdversarialTraining


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Logits so small that squares of their gradients are zero in float16."""
    precise = network().float()
    with torch.no_grad():
        precise[5].weight.mul_(1e-3)  # type: ignore[index, union-attr, operator]
    model = copy.deepcopy(precise).to(dtype)
    inputs, labels = batch(network(), 7, 16)
    inputs = inputs.to(dtype)
    adversary = AdversarialTraining(attack=FIXED, probability=1.0)
    answer, exact = adversary(model, inputs, labels), adversary(precise, inputs.float(), labels)
    assert answer.dtype == dtype
    assert adversary.last_replaced.all()
    moves, exact_moves = (answer.float() - inputs.float()).flatten(1), (exact - inputs.float()).flatten(1)
    torch.testing.assert_close(moves.norm(dim=1), exact_moves.norm(dim=1), rtol=0.1, atol=0)
    assert float(F.cosine_similarity(moves, exact_moves).median()) > 0.9
    minimal = AdversarialTraining(probability=1.0)
    assert minimal(network().to(dtype), inputs, labels).dtype == dtype
    assert minimal.last_replaced.any()


@pytest.mark.parametrize("attack", ATTACKS, ids=["minimal", "fixed", "fast"])
def test_under_autocast(attack: Attack | None) -> None:
    model, other = network().float(), network().float()
    inputs, labels = batch(network(), 7, 16)
    inputs = inputs.float()
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = adversary(model, inputs, labels)
        F.cross_entropy(model(answer), labels).backward()
        F.cross_entropy(other(answer), labels).backward()
    assert answer.dtype == torch.float32
    assert adversary.last_replaced.any()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("attack", ATTACKS, ids=["minimal", "fixed", "fast"])
def test_a_single_image_does_not_go_through_batch_norm_alone(attack: Attack | None) -> None:
    model, inputs = flat_network(), torch.rand(8, 6, generator=generator(), dtype=torch.float64)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(inputs[:1])
    labels = model(inputs).argmax(1)
    replaced = 0
    for seed in range(12):
        adversary = AdversarialTraining(attack=attack, probability=0.15, generator=generator(seed))
        adversary(model, inputs, labels)
        replaced += int(adversary.last_replaced.sum())
    assert replaced > 0


def test_other_attacks_are_taken() -> None:
    def along_the_gradient(model: Any, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        F.cross_entropy(model(inputs), labels, reduction="sum").backward()
        return inputs.detach() + sizes[:, None, None, None] * inputs.grad.sign()

    model = network()
    inputs, labels = batch(model, 8)
    attack = FixedSizeAttack(along_the_gradient, norm="linf", bounds=(0, 1))
    before = snapshot(model, inputs)
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    answer = adversary(model, inputs, labels)
    assert adversary.last_replaced[1:].all()
    assert bool(((answer >= 0) & (answer <= 1)).all())
    assert_unchanged(before, snapshot(model, inputs))


def test_targets_of_the_chosen_images() -> None:
    model = network().eval()
    inputs, labels = build_batch(0, 12)
    labels = model(inputs).argmax(1)
    target = (labels + 1 + torch.arange(12) % 3) % 4
    attack = MinimumNormAttack(effort="fast")
    adversary = AdversarialTraining(attack=attack, criterion=Reaches(target), generator=generator(2))
    answer = adversary(model, inputs, labels)
    assert torch.equal(adversary.last_replaced, chosen(2, 12))
    assert torch.equal(model(answer).argmax(1)[adversary.last_replaced], target[adversary.last_replaced])


def test_several_labels() -> None:
    model = network()
    inputs, _ = build_batch(0, 8)
    labels = (copy.deepcopy(model)(inputs) > 0).long()
    adversary = AdversarialTraining(
        attack=MinimumNormAttack(effort="fast"), criterion="label_flips", probability=1.0, batch_statistics=False
    )
    answer = adversary(model, inputs, labels)
    flipped = (model.eval()(answer) > 0).long() != labels
    assert flipped.any(1).all()


def _regularised(model: nn.Module) -> nn.Module:
    return RegularizedModule(model, LipschitzRegularizer(strength=1.0))


@pytest.mark.parametrize(
    "wrap",
    [
        lambda model: torch.compile(model, backend="eager"),
        _regularised,
        lambda model: torch.compile(_regularised(model), backend="eager"),
    ],
)
def test_wrapped_networks(wrap: Any) -> None:
    model = network()
    inputs, labels = batch(model, 9)
    wrapped = wrap(copy.deepcopy(model))
    before = snapshot(wrapped, inputs)
    answer, expected = (AdversarialTraining(generator=generator(4))(m, inputs, labels) for m in (wrapped, model))
    assert not torch.equal(answer, inputs)
    assert torch.equal(answer, expected)
    assert_unchanged(before, snapshot(wrapped, inputs))


def _meet(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def _one_of_two(rank: int, folder: str) -> None:
    """Train with each process's own choices: in the first step process 1 chooses no image at all."""
    _meet(rank, folder)
    model = nn.parallel.DistributedDataParallel(network(dropout=0.2))
    torch.manual_seed(rank)  # of dropout
    attack = PaperAttack(steps=7, rho=0.5, momentum=0.0, objective="cross_entropy")  # finds some in each process
    adversary = AdversarialTraining(attack=attack, generator=generator(rank))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    replaced = []
    for step in range(4):
        adversary.probability = 0.0 if step == 0 and rank == 1 else 0.7
        inputs, _ = build_batch(10 * step + rank, 6)
        with torch.no_grad():
            labels = copy.deepcopy(model.module)(inputs).argmax(1)
        inputs = adversary(model, inputs, labels)
        replaced.append(adversary.last_replaced)
        optimizer.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
    torch.save({"parameters": list(model.parameters()), "replaced": torch.stack(replaced)}, f"{folder}/{rank}")
    torch.distributed.destroy_process_group()


def _refused(rank: int, folder: str) -> None:
    from torch.distributed.fsdp import fully_shard

    _meet(rank, folder)
    inputs, labels = torch.rand(4, 6), torch.zeros(4, dtype=torch.long)
    said = []
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(flat_network()).float()
    with pytest.raises(InvalidInputError) as refusal:
        AdversarialTraining(probability=1.0)(synchronised, inputs, labels)
    said.append(str(refusal.value))
    AdversarialTraining(probability=float(rank), batch_statistics=False)(synchronised, inputs, labels)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    with pytest.raises(InvalidInputError) as refusal:
        AdversarialTraining(batch_statistics=False)(fully_shard(flat_network().float(), mesh=mesh), inputs, labels)
    said.append(str(refusal.value))
    Path(folder, f"{rank}.json").write_text(json.dumps(said))
    torch.distributed.destroy_process_group()


def _in_two_processes(function: str, folder: Path) -> None:
    code = f"import sys, test_adversarial_settings as t; t.{function}(int(sys.argv[1]), sys.argv[2])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    both = [subprocess.Popen([sys.executable, "-c", code, str(rank), str(folder)], env=environment) for rank in (0, 1)]
    try:
        assert [process.wait(timeout=120) for process in both] == [0, 0]
    finally:
        for process in both:  # one that waits for the other forever
            process.kill()


@pytest.mark.slow
def test_two_processes_stay_equal(tmp_path: Path) -> None:
    _in_two_processes("_one_of_two", tmp_path)
    one, other = (torch.load(tmp_path / str(rank), weights_only=True) for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one["parameters"], other["parameters"], strict=True))
    assert not torch.equal(one["parameters"][0], next(iter(network().parameters())))
    assert one["replaced"].any()
    assert not other["replaced"][0].any()
    assert other["replaced"].any()


@pytest.mark.slow
def test_processes_that_would_wait_forever_are_refused(tmp_path: Path) -> None:
    _in_two_processes("_refused", tmp_path)
    for rank in (0, 1):
        synchronised, sharded = json.loads((tmp_path / f"{rank}.json").read_text())
        assert synchronised.startswith("batch_statistics: expected False for a network with SyncBatchNorm")
        assert sharded.startswith("model: expected whole parameters in every process")


@pytest.mark.parametrize(
    ("setting", "error", "message"),
    [
        ({"attack": "paper"}, InvalidTypeError, "attack: expected an Attack object or None, got 'paper'"),
        ({"probability": 1.5}, InvalidInputError, r"probability: expected a value in \[0, 1\], got 1.5"),
        ({"criterion": "wrong"}, InvalidInputError, "criterion: expected one of"),
    ],
)
def test_settings_are_checked(setting: dict[str, object], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AdversarialTraining(**setting)  # type: ignore[arg-type]


CLASSES = torch.zeros(6, dtype=torch.long)


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"labels": torch.full((6, 4), 0.25)}, InvalidTypeError, r"labels: expected integer .* labels.argmax\(1\)"),
        ({"labels": torch.ones(6, 4).long()}, InvalidTypeError, 'criterion="label_flips"'),
        ({"labels": CLASSES[:5]}, InvalidInputError, r"labels: expected one class per image, shape \(6,\), got \(5,\)"),
        ({"labels": CLASSES + 4}, InvalidInputError, r"labels: expected classes in 0..3, got 4..4"),
        ({"inputs": torch.zeros(6, 2, 5, 5).long()}, InvalidTypeError, "inputs: expected floating"),
        ({"inputs": torch.full((6, 2, 5, 5), torch.nan)}, InvalidInputError, "inputs: expected finite"),
        ({"inputs": torch.full((6, 2, 5, 5), 2.0)}, InvalidInputError, "inputs: expected values within the bounds"),
        ({"model": lambda inputs: inputs}, InvalidTypeError, "model: expected an nn.Module, .* got function"),
        ({"model": nn.Flatten(0)}, ModelOutputError, "model: expected floating logits"),
        ({"model": nn.Sequential(nn.Flatten(), nn.Threshold(9.0, 0.0))}, None, ""),
    ],
)
def test_arguments_are_checked(changed: dict[str, Any], error: type[Exception] | None, message: str) -> None:
    arguments = {"model": network().float(), "inputs": torch.rand(6, 2, 5, 5), "labels": CLASSES, **changed}
    adversary = AdversarialTraining(attack=PaperAttack(steps=2, rho=0.1, bounds=(0, 1), momentum=0.0), probability=1.0)
    state = adversary.state_dict()
    if error is None:  # a gradient of zero is no error: nothing is found
        assert torch.equal(adversary(**arguments), arguments["inputs"])
        return
    with pytest.raises(error, match=message):
        adversary(**arguments)
    assert torch.equal(adversary.state_dict()["generator"], state["generator"])


def test_a_model_without_a_gradient_is_refused() -> None:
    class Detached(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.detach().flatten(1)

    with pytest.raises(DisconnectedModelError, match="does not depend on its input"):
        AdversarialTraining(probability=1.0)(Detached(), torch.rand(6, 3), CLASSES)
