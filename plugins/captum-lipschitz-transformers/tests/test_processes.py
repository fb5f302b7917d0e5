"""Two processes on gloo: the gradients of one process with both shares, under the Trainer and under Accelerate."""

import multiprocessing
import socket

import pytest
import torch
import workers
from models import SEED, Images, adaptive, explicit_steps, regularizer, relative_error, vit
from torch import multiprocessing as torch_multiprocessing

from captum_lipschitz import accuracy_robustness_area, margin_radius
from captum_lipschitz_transformers import LogitsNetwork

ROUNDING = 2e-6
TRAINED = ["ddp", "unused found", "unused not looked for", "accumulated", "not averaged", "smoothed"]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Imported once, in a process that the others are forked from.
    models = [f"transformers.models.{name}.modeling_{name}" for name in ("vit", "resnet")]
    multiprocessing.set_forkserver_preload([*models, "captum_lipschitz_transformers.trainer"])
    torch_multiprocessing.start_processes(
        workers.run, args=(port, str(folder)), nprocs=workers.PROCESSES, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(workers.PROCESSES)]


@pytest.mark.parametrize("case", [*TRAINED, "accelerate, explicit", "accelerate, module"])
def test_gradients_are_those_of_one_process_with_both_shares(answers, case):
    accumulate = 2 if case == "accumulated" else 1
    many = {"accumulation_steps": 1 if accumulate == 1 else None}
    regularizers = [regularizer(adaptive(), seed=SEED + rank, **many) for rank in range(workers.PROCESSES)]
    shares = [answer[case]["batches"] for answer in answers]
    loss = torch.nn.CrossEntropyLoss(label_smoothing=0.1 if case == "smoothed" else 0.0)
    expected = explicit_steps(vit(), regularizers, shares, accumulate=accumulate, loss=loss)
    assert len(expected) == 2
    for answer in answers:
        assert len(answer[case]["gradients"]) == 2
        for found, wanted in zip(answer[case]["gradients"], expected, strict=True):
            assert relative_error(found, wanted) < ROUNDING
    assert torch.equal(answers[0][case]["parameters"], answers[1][case]["parameters"])
    images = [{tuple(row.flatten().tolist()) for batch, _ in share for row in batch} for share in shares]
    assert not images[0] & images[1]


def test_what_is_logged_is_of_both(answers):
    first, second = (answer["ddp"]["rows"] for answer in answers)
    names = ["lipschitz_penalty", "lipschitz_strength", "lipschitz_task_loss", "lipschitz_median_radius"]
    assert len(first) == 2
    for one, other in zip(first, second, strict=True):
        assert all(one[name] == other[name] for name in names)
        total = one["lipschitz_task_loss"] + one["lipschitz_strength"] * one["lipschitz_penalty"]
        assert one["loss"] == pytest.approx(total, rel=1e-5)
    model = vit()
    model.load_state_dict(answers[0]["ddp"]["state"])
    both = zip(*(answer["ddp"]["batches"][-1] for answer in answers), strict=True)
    images, labels = (torch.cat(share) for share in both)
    expected = float(margin_radius(LogitsNetwork(model), images, labels).median())
    assert expected > 0
    assert first[-1]["lipschitz_median_radius"] == pytest.approx(expected, rel=1e-5)


def test_stopped_and_resumed_training_ends_with_the_same_bits(answers):
    for answer in answers:
        assert torch.equal(answer["resumed"]["whole"], answer["resumed"]["again"])
        assert answer["resumed"]["files"] == ["lipschitz_regularizer_0.pt", "lipschitz_regularizer_1.pt"]


def test_the_area_is_that_of_one_process(answers):
    data = Images(8, seed=9, decided_by=vit())
    pair = (data.images[:5], data.labels[:5])
    expected = accuracy_robustness_area(LogitsNetwork(vit()), [pair], attack=workers.attack(), doubts="off")
    for answer in answers:
        assert torch.equal(answer["area"]["distances"], expected.distances)
        assert answer["area"]["metrics"]["eval_ara"] == expected.area > 0


def test_a_static_graph_is_refused(answers):
    assert all("UnsupportedTrainingError: ddp_static_graph" in answer["static graph"] for answer in answers)


def test_every_case_is_looked_at(answers):
    looked_at = {*TRAINED, "accelerate, explicit", "accelerate, module", "resumed", "area", "static graph"}
    assert set(answers[0]) == set(workers.CASES) == looked_at
