"""Two processes through the task's ``prepare_distributed``: the gradients of one process with both shares."""

import multiprocessing
import socket

import pytest
import torch
import workers
from networks import flat_gradient, relative_error
from torch import multiprocessing as torch_multiprocessing
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_lipschitz.training import draw, lipschitz_penalty

ROUNDING = 2e-6


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # Imported once, in a process that the others are forked from.
    multiprocessing.set_forkserver_preload(["timm", "captum_lipschitz.training"])
    torch_multiprocessing.start_processes(
        workers.run, args=(port, str(folder)), nprocs=workers.PROCESSES, start_method="forkserver"
    )
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(workers.PROCESSES)]


def expected_steps(strengths, accumulate):
    """One process that has both shares, with the strengths that the two had and each one's draws."""
    model = workers.network()
    sources = [torch.Generator().manual_seed(workers.SEED + rank) for rank in range(workers.PROCESSES)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    gradients, batch = [], 0
    for _ in range(2):
        for _ in range(accumulate):
            for rank, source in enumerate(sources):
                images, labels = workers.share(rank, batch)
                leaf = images.clone().requires_grad_()
                with sdpa_kernel(SDPBackend.MATH):
                    logits = model(leaf)
                drawn = draw(len(images), logits.shape[1], tandem_probability=0.2, generator=source)
                penalty = lipschitz_penalty(logits, leaf, labels, draws=drawn)
                loss = F.cross_entropy(logits, labels) + strengths[batch] * penalty
                (loss / (accumulate * workers.PROCESSES)).backward()
            batch += 1
        gradients.append(flat_gradient(model))
        optimizer.step()
        optimizer.zero_grad()
    return gradients


@pytest.mark.parametrize(
    ("case", "accumulate"),
    [
        ("ddp", 1),
        ("find_unused_parameters", 1),
        ("bucket views", 1),
        ("accumulated", 2),
        ("attached after wrapping", 1),
    ],
)
def test_gradients_are_those_of_one_process_with_both_shares(answers, case, accumulate):
    one, other = (answer[case] for answer in answers)
    assert one["strengths"] == other["strengths"]
    assert len(set(one["strengths"])) == 2
    expected = expected_steps(one["strengths"], accumulate)
    for answer in (one, other):
        for found, wanted in zip(answer["gradients"], expected, strict=True):
            assert relative_error(found, wanted) < ROUNDING
    assert torch.equal(one["parameters"], other["parameters"])


def test_the_penalty_matters_there(answers):
    answer = answers[0]["ddp"]
    expected = expected_steps(answer["strengths"], 1)[0]
    plain = expected_steps([0.0, 0.0], 1)[0]
    assert relative_error(plain, expected) > 0.01


def test_one_checkpoint_goes_on_in_all_processes_with_draws_of_their_own(answers):
    first, second = (answer["resumed"] for answer in answers)
    assert torch.equal(first["generator"], first["saved"])
    assert torch.equal(first["saved"], second["saved"])
    assert not torch.equal(second["generator"], first["generator"])
    for answer in (first, second):
        assert answer["controllers"][0] == answer["controllers"][1]
