"""AdversarialTraining: the published attack on the chosen images, the others and the model untouched."""

from __future__ import annotations

import copy
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from contracts import Breaking, assert_unchanged, half_frozen, snapshot
from hypothesis import given
from hypothesis import strategies as st
from oracles import published_training_attack
from strategies import build_batch, build_convolutional, seeds
from torch import Tensor, nn
from torch.nn import functional as F

from captum_lipschitz import (
    AdaptiveStrength,
    FixedSizeAttack,
    HalfHuberReLU,
    LipschitzRegularizer,
    MinimumNormAttack,
    PaperAttack,
    Reaches,
    RegularizedModule,
    attach_regularizer,
)
from captum_lipschitz.attacks import Attack
from captum_lipschitz.attacks.base import Found, Problem
from captum_lipschitz.errors import DisconnectedModelError, InvalidInputError, InvalidTypeError, ModelOutputError
from captum_lipschitz.training.adversarial import AdversarialTraining
from captum_lipschitz.training.attach import uncounted

FIXED = PaperAttack(mode="fixed", steps=7, rho=0.05, momentum=0.0, objective="cross_entropy")
ATTACKS = [None, FIXED, MinimumNormAttack(effort="fast")]


def _network(seed: int = 0, *, dropout: float = 0.0) -> nn.Module:
    """In train mode, running averages far from any batch's."""
    model = build_convolutional(seed)
    model[3].p = dropout  # type: ignore[index, union-attr]
    return model.train()


def _batch(model: nn.Module, seed: int, size: int = 10) -> tuple[Tensor, Tensor]:
    """Images with the labels that the model decides on in train mode, but for the first, which is wrong."""
    inputs, _ = build_batch(seed, size)
    labels = copy.deepcopy(model)(inputs).argmax(1)
    labels[0] = (labels[0] + 1) % 4
    return inputs, labels


def _generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def _chosen(generator_seed: int, size: int) -> Tensor:
    return torch.rand(size, generator=_generator(generator_seed)) < 0.5


@given(seeds, st.sampled_from([0.02, 0.1, 0.5]), st.booleans())
def test_the_chosen_images_are_those_of_the_published_loop(seed: int, rho: float, minimal: bool) -> None:
    model = _network(seed)
    inputs, labels = _batch(model, seed)
    attack = PaperAttack(
        mode="minimal" if minimal else "fixed", steps=7, rho=rho, momentum=0.0, objective="cross_entropy"
    )
    adversary = AdversarialTraining(attack=attack, generator=_generator(seed))
    answer = adversary(model, inputs, labels)
    rows = _chosen(seed, len(inputs))
    if rows.sum() > 1:  # a single one takes two of the batch along
        slow = published_training_attack(
            copy.deepcopy(model), inputs[rows], labels[rows], rho=rho, n_steps=7, minimal=minimal
        )
        torch.testing.assert_close(answer[rows], slow, rtol=1e-9, atol=1e-9)
    assert torch.equal(answer[~rows], inputs[~rows])


def test_the_published_loop_has_every_kind_of_image() -> None:
    """What the oracle above was held against: found, not found, and wrong before."""
    model = _network()
    inputs, labels = _batch(model, 0, 24)
    attack = PaperAttack(steps=7, rho=0.02, momentum=0.0, objective="cross_entropy")
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    answer = adversary(model, inputs, labels)
    slow = published_training_attack(copy.deepcopy(model), inputs, labels, rho=0.02, n_steps=7, minimal=True)
    torch.testing.assert_close(answer, slow, rtol=1e-9, atol=1e-9)
    replaced = (answer != inputs).flatten(1).any(1)
    assert torch.equal(adversary.last_replaced, replaced)
    assert 0 < int(replaced.sum()) < 23
    assert not replaced[0]
    sizes = (answer - inputs).square().flatten(1).mean(1).sqrt()
    assert float(sizes.max()) <= 0.02


def test_the_statistics_are_the_batchs_or_the_running_ones() -> None:
    model = _network()
    inputs, labels = _batch(model, 1)
    answers = [
        AdversarialTraining(probability=1.0, attack=FIXED, batch_statistics=own)(model, inputs, labels)
        for own in (True, False)
    ]
    assert not torch.allclose(*answers)
    slow = published_training_attack(copy.deepcopy(model).eval(), inputs, labels, rho=0.05, n_steps=7, minimal=False)
    torch.testing.assert_close(answers[1], slow, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("attack", [MinimumNormAttack(effort="fast"), PaperAttack(steps=20, rho=0.5)])
@pytest.mark.parametrize("criterion", ["misclassified", "below_chance"])
def test_without_batch_statistics_it_is_the_attack_itself(attack: Attack, criterion: str) -> None:
    model = _network()
    inputs, labels = _batch(model, 2)
    adversary = AdversarialTraining(attack=attack, criterion=criterion, batch_statistics=False, probability=1.0)
    answer = adversary(model, inputs, labels)
    expected = attack(model, inputs, labels, criterion)
    assert bool((expected.distances > 0).any())
    torch.testing.assert_close(answer, expected.adversarial_inputs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("attack", ATTACKS, ids=["minimal", "fixed", "fast"])
@pytest.mark.parametrize("batch_statistics", [True, False])
@pytest.mark.parametrize(("calls", "error"), [(99, None), (0, RuntimeError), (3, RuntimeError), (3, KeyboardInterrupt)])
def test_it_leaves_no_trace(
    attack: Attack | None, batch_statistics: bool, calls: int, error: type[BaseException] | None
) -> None:
    model = half_frozen(Breaking(_network(dropout=0.3), calls, error("broken") if error else RuntimeError()))
    model.model[1].train()  # its statistics would move
    model.model[3].eval()  # a frozen one must stay so
    inputs, _ = build_batch(3, 10)
    labels = copy.deepcopy(model.model).train(batch_statistics)(inputs).argmax(1)
    inputs.requires_grad_()
    inputs.grad = torch.ones_like(inputs)
    adversary = AdversarialTraining(attack=attack, batch_statistics=batch_statistics, probability=1.0)
    state = adversary.state_dict()
    before = snapshot(model, inputs)
    if error is None:
        answer = adversary(model, inputs, labels)
        assert not answer.requires_grad
        assert answer.dtype == inputs.dtype
        assert not torch.equal(answer, inputs)
        assert not torch.equal(state["generator"], adversary.state_dict()["generator"])
    else:
        with pytest.raises(error, match="broken"):
            adversary(model, inputs, labels)
        assert torch.equal(state["generator"], adversary.state_dict()["generator"])
    assert_unchanged(before, snapshot(model, inputs))


def test_a_graph_in_flight_stays_valid() -> None:
    model = _network()
    inputs, labels = _batch(model, 0)
    loss = F.cross_entropy(model(inputs), labels)
    AdversarialTraining(probability=1.0)(model, inputs, labels)
    loss.backward()
    other = _network()
    F.cross_entropy(other(inputs), labels).backward()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def test_nothing_found_stays_clean_to_the_bit() -> None:
    model = _network().float()
    inputs, labels = (tensor.float() if tensor.is_floating_point() else tensor for tensor in _batch(_network(), 4))
    inputs[0, 0, 0, 0] = -0.0
    attack = PaperAttack(steps=7, rho=1e-7, momentum=0.0)
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    answer = adversary(model, inputs, labels)
    assert torch.equal(answer.view(torch.int32), inputs.view(torch.int32))
    assert answer.data_ptr() != inputs.data_ptr()
    assert not adversary.last_replaced.any()
    fixed = PaperAttack(mode="fixed", steps=7, rho=1e-4, momentum=0.0)
    replaced = AdversarialTraining(attack=fixed, probability=1.0)(model, inputs, labels)
    assert (replaced != inputs).flatten(1).any(1).all()  # found or not, those that were wrong before too


class _Loud(Attack):
    """Finds nothing, and answers with perturbations all the same."""

    def search(self, problem: Problem) -> Found:
        found = torch.zeros(len(problem), dtype=torch.bool)
        return Found(torch.ones_like(problem.inputs), found, found.long())


def test_what_an_attack_does_not_claim_is_not_used() -> None:
    model = _network()
    inputs, labels = _batch(model, 4)
    assert torch.equal(AdversarialTraining(attack=_Loud(), probability=1.0)(model, inputs, labels), inputs)


def test_where_no_image_is_chosen_nothing_is_run() -> None:
    model = Breaking(_network(), 0, RuntimeError("was run"))
    inputs, labels = build_batch(0, 6)
    assert torch.equal(AdversarialTraining(probability=0.0)(model, inputs, labels), inputs)


def test_half_of_the_images_are_chosen() -> None:
    model = nn.Linear(3, 2)
    adversary = AdversarialTraining(
        attack=PaperAttack(mode="fixed", steps=1, rho=0.1, momentum=0.0), generator=_generator()
    )
    inputs, labels = torch.rand(4000, 3, generator=_generator()), torch.zeros(4000, dtype=torch.long)
    adversary(model, inputs, labels)
    assert abs(float(adversary.last_replaced.double().mean()) - 0.5) < 4 * 0.5 / 4000**0.5


def test_the_generator_decides_everything_and_a_checkpoint_continues_identically() -> None:
    model = _network(dropout=0.5)
    inputs, labels = _batch(model, 5)
    one, other = (AdversarialTraining(generator=_generator(7)) for _ in range(2))
    torch.manual_seed(1)
    first = [one(model, inputs, labels) for _ in range(4)]
    torch.manual_seed(2)
    second = [other(model, inputs, labels) for _ in range(2)]
    resumed = AdversarialTraining()
    resumed.load_state_dict(other.state_dict())
    second += [resumed(model, inputs, labels) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])
    with pytest.raises(InvalidInputError, match=r"missing \['generator'\]"):
        resumed.load_state_dict({})


def test_the_attack_does_not_use_the_masks_that_training_draws_next() -> None:
    masks = []
    model = _network(dropout=0.5)
    model[3].register_forward_hook(lambda _module, _args, output: masks.append(output.detach() == 0))  # type: ignore[index]
    inputs, labels = _batch(_network(), 5)
    masks.clear()
    AdversarialTraining(probability=1.0)(model, inputs, labels)
    during = len(masks)
    model(inputs)
    assert during == 8
    live = ~torch.stack([mask.all(0) for mask in masks]).any(0)  # HalfHuberReLU has zeros of its own
    assert not any(torch.equal(masks[-1][:, live], mask[:, live]) for mask in masks[:during])


def _step(model: nn.Module, regularizer: LipschitzRegularizer, inputs: Tensor, labels: Tensor) -> None:
    leaf = inputs.requires_grad_()
    logits = model(leaf)
    regularizer(logits, leaf, labels, task_loss=F.cross_entropy(logits, labels)).loss.backward()


def _regularizer() -> LipschitzRegularizer:
    return LipschitzRegularizer(strength=AdaptiveStrength(target_loss=50.0), generator=_generator(3))


def test_it_composes_with_the_penalty() -> None:
    model, other = _network(), _network()
    inputs, labels = _batch(model, 6)
    _step(model, _regularizer(), AdversarialTraining(generator=_generator(1))(model, inputs, labels), labels)
    rows = _chosen(1, len(inputs))
    by_hand = inputs.clone()
    by_hand[rows] = published_training_attack(
        copy.deepcopy(other), inputs[rows], labels[rows], rho=0.1, n_steps=7, minimal=True
    )
    assert not torch.equal(by_hand, inputs)
    _step(other, _regularizer(), by_hand, labels)
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9)
    for a, b in zip(model.buffers(), other.buffers(), strict=True):
        torch.testing.assert_close(a, b)


def test_an_attached_regularizer_does_not_count_the_attack() -> None:
    attached, explicit = _network(), _network()
    inputs, labels = _batch(explicit, 6)
    regularizer, other = _regularizer(), _regularizer()
    handle = attach_regularizer(attached, regularizer)
    for seed in range(2):
        mixed = AdversarialTraining(generator=_generator(seed))(attached, inputs, labels)
        assert regularizer.state_dict()["steps"] == seed
        F.cross_entropy(attached(mixed), labels).backward()
        assert regularizer.state_dict()["steps"] == seed + 1
        _step(explicit, other, AdversarialTraining(generator=_generator(seed))(explicit, inputs, labels), labels)
    for a, b in zip(attached.parameters(), explicit.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-7, atol=1e-9)
    assert handle.last_output is not None


def test_uncounted_ends_with_an_error_too() -> None:
    model = _network()
    handle = attach_regularizer(model, _regularizer())
    inputs, labels = _batch(_network(), 6)
    with uncounted():
        F.cross_entropy(model(inputs), labels).backward()
    with pytest.raises(TypeError, match="conv2d"), uncounted():
        model(None)
    assert handle.last_output is None
    F.cross_entropy(model(inputs), labels).backward()
    assert handle.last_output is not None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype: torch.dtype) -> None:
    """Logits so small that squares of their gradients are zero in float16."""
    precise = _network().float()
    with torch.no_grad():
        precise[5].weight.mul_(1e-3)  # type: ignore[index, union-attr, operator]
    model = copy.deepcopy(precise).to(dtype)
    inputs, labels = _batch(_network(), 7, 16)
    inputs = inputs.to(dtype)
    adversary = AdversarialTraining(attack=FIXED, probability=1.0)
    answer, exact = adversary(model, inputs, labels), adversary(precise, inputs.float(), labels)
    assert answer.dtype == dtype
    assert adversary.last_replaced.all()
    moves, exact_moves = (answer.float() - inputs.float()).flatten(1), (exact - inputs.float()).flatten(1)
    torch.testing.assert_close(moves.norm(dim=1), exact_moves.norm(dim=1), rtol=0.1, atol=0)
    assert float(F.cosine_similarity(moves, exact_moves).median()) > 0.9
    minimal = AdversarialTraining(probability=1.0)
    assert minimal(_network().to(dtype), inputs, labels).dtype == dtype
    assert minimal.last_replaced.any()


@pytest.mark.parametrize("attack", ATTACKS, ids=["minimal", "fixed", "fast"])
def test_under_autocast(attack: Attack | None) -> None:
    model, other = _network().float(), _network().float()
    inputs, labels = _batch(_network(), 7, 16)
    inputs = inputs.float()
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        answer = adversary(model, inputs, labels)
        F.cross_entropy(model(answer), labels).backward()
        F.cross_entropy(other(answer), labels).backward()
    assert answer.dtype == torch.float32
    assert adversary.last_replaced.any()
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(model.parameters(), other.parameters(), strict=True))


def _flat() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), HalfHuberReLU(), nn.Linear(8, 3)).double()


@pytest.mark.parametrize("attack", ATTACKS, ids=["minimal", "fixed", "fast"])
def test_a_single_image_does_not_go_through_batch_norm_alone(attack: Attack | None) -> None:
    model, inputs = _flat(), torch.rand(8, 6, generator=_generator(), dtype=torch.float64)
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        model(inputs[:1])
    labels = model(inputs).argmax(1)
    replaced = 0
    for seed in range(12):
        adversary = AdversarialTraining(attack=attack, probability=0.15, generator=_generator(seed))
        adversary(model, inputs, labels)
        replaced += int(adversary.last_replaced.sum())
    assert replaced > 0


def test_other_attacks_are_taken() -> None:
    def along_the_gradient(model: Any, inputs: Tensor, labels: Tensor, sizes: Tensor) -> Tensor:
        inputs = inputs.clone().requires_grad_()
        F.cross_entropy(model(inputs), labels, reduction="sum").backward()
        return inputs.detach() + sizes[:, None, None, None] * inputs.grad.sign()

    model = _network()
    inputs, labels = _batch(model, 8)
    attack = FixedSizeAttack(along_the_gradient, norm="linf", bounds=(0, 1))
    before = snapshot(model, inputs)
    adversary = AdversarialTraining(attack=attack, probability=1.0)
    answer = adversary(model, inputs, labels)
    assert adversary.last_replaced[1:].all()
    assert bool(((answer >= 0) & (answer <= 1)).all())
    assert_unchanged(before, snapshot(model, inputs))


def test_targets_of_the_chosen_images() -> None:
    model = _network().eval()
    inputs, labels = build_batch(0, 12)
    labels = model(inputs).argmax(1)
    target = (labels + 1 + torch.arange(12) % 3) % 4
    attack = MinimumNormAttack(effort="fast")
    adversary = AdversarialTraining(attack=attack, criterion=Reaches(target), generator=_generator(2))
    answer = adversary(model, inputs, labels)
    assert torch.equal(adversary.last_replaced, _chosen(2, 12))
    assert torch.equal(model(answer).argmax(1)[adversary.last_replaced], target[adversary.last_replaced])


def test_several_labels() -> None:
    model = _network()
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
    model = _network()
    inputs, labels = _batch(model, 9)
    wrapped = wrap(copy.deepcopy(model))
    before = snapshot(wrapped, inputs)
    answer, expected = (AdversarialTraining(generator=_generator(4))(m, inputs, labels) for m in (wrapped, model))
    assert not torch.equal(answer, inputs)
    assert torch.equal(answer, expected)
    assert_unchanged(before, snapshot(wrapped, inputs))


def _meet(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)


def _one_of_two(rank: int, folder: str) -> None:
    """Train with each process's own choices: in the first step process 1 chooses no image at all."""
    _meet(rank, folder)
    model = nn.parallel.DistributedDataParallel(_network(dropout=0.2))
    adversary = AdversarialTraining(generator=_generator(rank))
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
    synchronised = nn.SyncBatchNorm.convert_sync_batchnorm(_flat()).float()
    with pytest.raises(InvalidInputError, match="batch_statistics: expected False for a network with SyncBatchNorm"):
        AdversarialTraining(probability=1.0)(synchronised, inputs, labels)
    AdversarialTraining(probability=float(rank), batch_statistics=False)(synchronised, inputs, labels)
    mesh = torch.distributed.device_mesh.init_device_mesh("cpu", (2,))
    with pytest.raises(InvalidInputError, match="model: expected whole parameters in every process"):
        AdversarialTraining(batch_statistics=False)(fully_shard(_flat().float(), mesh=mesh), inputs, labels)
    torch.distributed.destroy_process_group()


def _in_two_processes(function: str, folder: Path) -> None:
    code = f"import sys, test_adversarial as t; t.{function}(int(sys.argv[1]), sys.argv[2])"
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
    assert not torch.equal(one["parameters"][0], next(iter(_network().parameters())))
    assert one["replaced"].any()
    assert not other["replaced"][0].any()
    assert other["replaced"].any()


@pytest.mark.slow
def test_processes_that_would_wait_forever_are_refused(tmp_path: Path) -> None:
    _in_two_processes("_refused", tmp_path)


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
    arguments = {"model": _network().float(), "inputs": torch.rand(6, 2, 5, 5), "labels": CLASSES, **changed}
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
