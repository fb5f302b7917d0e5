"""Training in two processes: the gradients of one process with the whole batch, or an error that says what works."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import trainers
from torch import multiprocessing

from captum_lipschitz.training.processes import ProcessWatch

pytestmark = pytest.mark.slow

EXACT = [
    "inside",
    "inside, static_graph",
    "inside, find_unused_parameters",
    "inside, gradient_as_bucket_view",
    "inside, every",
    "inside, every, static_graph",
    "inside, no_sync",
    "inside, compiled",
    "through",
    "through, find_unused_parameters",
    "sharded root",
    "sharded layers",
    "sharded layers, accumulated",
    "sharded root, compiled",
]
REFUSED = {
    "through, static_graph": "UnsupportedTrainingError: logits: the logits come out of DistributedDataParallel(static",
    "module": "UnsupportedTrainingError: the processes' parameters differ: gradients were not exchanged",
    "two backwards": "UnsupportedTrainingError: the processes' parameters differ: gradients were not exchanged",
    "reused": "UnsupportedTrainingError: the processes' parameters differ: gradients were not exchanged",
    "attached": "InvalidInputError: model: attach_regularizer does not support training in several processes",
    "sharded, outside": "UnsupportedTrainingError: logits: the logits come through fully_shard",
    "sharded layers, compiled": "UnsupportedTrainingError: compile: layers under fully_shard interrupt the graph",
}


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each case gave, in each process."""
    folder = tmp_path_factory.mktemp("processes")
    multiprocessing.spawn(trainers.run, args=(str(folder / "meet"), str(folder)), nprocs=trainers.PROCESSES, join=True)
    return [torch.load(folder / f"{rank}.pt") for rank in range(trainers.PROCESSES)]


@pytest.mark.parametrize("case", EXACT)
def test_the_gradients_are_those_of_one_process(answers: list[dict[str, Any]], case: str) -> None:
    for answer in answers:
        errors = answer[case] if isinstance(answer[case], list) else [answer[case]]
        assert all(isinstance(error, float) for error in errors), errors
        assert max(errors) < 1e-12


@pytest.mark.parametrize("case", REFUSED)
def test_what_would_be_wrong_is_refused(answers: list[dict[str, Any]], case: str) -> None:
    for answer in answers:
        assert str(answer[case]).startswith(REFUSED[case]), answer[case]
        assert "RegularizedModule(" in answer[case]


def test_what_is_right_goes_on(answers: list[dict[str, Any]]) -> None:
    for answer in answers:
        assert answer["right"] == 5
        assert answer["group of one"] == 3
        assert answer["generators"] is True
        assert answer["sharded, names"] is True


@pytest.mark.parametrize("case", ["sharded, trained", "sharded, trained and freed"])
def test_sharded_parameters_are_trained_and_their_optimiser_is_seen(answers: list[dict[str, Any]], case: str) -> None:
    for answer in answers:
        (text,) = answer[case]  # one warning, and no hook left
        assert "Adam divides by a running size of the gradient" in text


def test_processes_agree_on_the_first_resolution(answers: list[dict[str, Any]]) -> None:
    assert [answer["resolutions"] for answer in answers] == [4.0, 4.0]


def test_every_case_is_looked_at(answers: list[dict[str, Any]]) -> None:
    alone = {"right", "group of one", "generators", "resolutions"}
    sharded = {"sharded, names", "sharded, trained", "sharded, trained and freed"}
    looked_at = {*EXACT, *REFUSED, *alone, *sharded}
    assert looked_at == set(trainers.CASES) == set(answers[0])


def test_the_penalty_matters_there() -> None:
    with_penalty, without = trainers.reference(), trainers.reference(penalised=False)
    assert all(float((a - b).norm() / a.norm()) > 1e-3 for a, b in zip(with_penalty[:3], without[:3], strict=True))


def test_one_process_watches_nothing() -> None:
    watch = ProcessWatch()
    assert not watch.wants_parameters()
    loss = torch.tensor(2.0)
    assert watch.mean(loss) is loss
