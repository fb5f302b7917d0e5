"""Two processes under the real DDP strategy: the gradients of one process with both shares, the area of one process."""

import copy
import multiprocessing
import socket

import pytest
import torch
import workers
from modules import data, explicit_steps, network, relative_error
from torch import multiprocessing as torch_multiprocessing

from captum_lipschitz import LipschitzRegularizer, accuracy_robustness_area, margin_radius

ROUNDING = 2e-6


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Imported once, in a process that the others are forked from.
    multiprocessing.set_forkserver_preload(
        ["lightning.pytorch", "captum_lipschitz.metrics", "captum_lipschitz.training"]
    )
    torch_multiprocessing.start_processes(
        workers.run, args=(port, str(folder)), nprocs=workers.PROCESSES, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(workers.PROCESSES)]


def expected_gradients(shares, accumulate):
    """One process that has both shares, as the trainer's sampler dealt them out, and the generators of both."""
    regularizers = [
        LipschitzRegularizer(
            strength=workers.adaptive(),
            generator=torch.Generator().manual_seed(workers.SEED + rank),
            accumulation_steps=1 if accumulate == 1 else None,
        )
        for rank in range(workers.PROCESSES)
    ]
    return explicit_steps(copy.deepcopy(network()), regularizers, shares, accumulate=accumulate)


@pytest.mark.parametrize(
    ("case", "accumulate"),
    [("ddp", 1), ("labels named", 1), ("find_unused_parameters", 1), ("static_graph", 1), ("accumulated", 2)],
)
def test_gradients_are_those_of_one_process_with_both_shares(answers, case, accumulate):
    expected = expected_gradients([answer[case]["batches"] for answer in answers], accumulate)
    assert len(expected) == 2 // accumulate
    for answer in answers:
        for found, wanted in zip(answer[case]["gradients"], expected, strict=True):
            assert relative_error(found, wanted) < ROUNDING
    assert torch.equal(answers[0][case]["parameters"], answers[1][case]["parameters"])


def test_the_median_radius_is_of_the_images_of_both(answers):
    net = network()
    net.load_state_dict(answers[0]["ddp"]["state"])
    both = zip(*(answer["ddp"]["batches"][-1] for answer in answers), strict=True)
    images, labels = (torch.cat(share) for share in both)
    expected = float(margin_radius(net, images, labels).median())
    assert expected > 0
    assert [answer["ddp"]["radius"] for answer in answers] == pytest.approx([expected] * 2, rel=1e-6)


def test_stopped_and_resumed_training_ends_with_the_same_parameters(answers):
    for answer in answers:
        assert torch.equal(answer["resumed"]["whole"], answer["resumed"]["again"])


@pytest.mark.parametrize(("case", "doubts"), [("area", "off"), ("area, doubts", "quick")])
def test_each_image_counts_once_and_the_area_is_that_of_one_process(answers, case, doubts):
    net = network()
    net.load_state_dict(answers[0][case]["state"])
    images, labels = data(workers.VALIDATION, seed=9)
    batches = list(zip(images.split(4), labels.split(4), strict=True))
    expected = accuracy_robustness_area(net, batches, attack=workers.attack(), doubts=doubts)
    assert len(expected) == workers.VALIDATION
    for answer in answers:
        assert torch.equal(answer[case]["distances"], expected.distances)
        assert (answer[case]["area"], answer[case]["interval"]) == (expected.area, expected.interval)
        assert answer[case]["logged"] == pytest.approx(expected.area)


def test_a_failure_in_one_process_is_one_in_all(answers):
    said = [answer["area fails"] for answer in answers]
    assert all("expected finite values, got NaN or infinity" in text for text in said), said


def test_images_that_cannot_be_shared_out_are_refused(answers):
    for answer in answers:
        assert "a sampler of its own" in answer["area, sampler"]
        assert "AraCallback(data=...)" in answer["area, sampler"]


def test_every_case_is_looked_at(answers):
    assert set(answers[0]) == set(workers.CASES)
    batches = [[images for images, _ in answer["ddp"]["batches"]] for answer in answers]
    shares = [{tuple(row.flatten().tolist()) for row in torch.cat(share)} for share in batches]
    assert len(shares[0] | shares[1]) == 32  # each image in one share only
