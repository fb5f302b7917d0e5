"""AutoAttack by the names that RobustBench uses."""

import importlib.util
import sys

import pyautoattack
import pytest
import torch
from models import linear, mid_grey

from captum_lipschitz.errors import InvalidInputError, MissingDependencyError
from captum_lipschitz_robustbench import provide_autoattack
from captum_lipschitz_robustbench.autoattack import AutoAttack


@pytest.fixture
def nothing_provided(monkeypatch):
    if (
        importlib.util.find_spec("autoattack") is not None
        and "captum" not in sys.modules["autoattack"].__dict__.get("AutoAttack", object).__module__
    ):
        pytest.skip("autoattack itself is installed")
    monkeypatch.delitem(sys.modules, "autoattack")
    monkeypatch.delitem(sys.modules, "autoattack.state")


def test_provided_once(nothing_provided):
    assert provide_autoattack()
    from autoattack import AutoAttack as Found
    from autoattack.state import EvaluationState

    assert Found is AutoAttack
    assert EvaluationState is pyautoattack.state.EvaluationState
    assert importlib.util.find_spec("autoattack") is not None
    assert not provide_autoattack()


def test_without_either(nothing_provided, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyautoattack", None)
    monkeypatch.setitem(sys.modules, "pyautoattack.state", None)
    with pytest.raises(MissingDependencyError, match="pip install pyautoattack"):
        provide_autoattack()
    assert "autoattack" not in sys.modules


def test_the_answer_is_pyautoattacks():
    model, images = linear(), mid_grey(4)
    labels = model(images).argmax(1)
    settings = {"norm": "L2", "eps": 0.3, "seed": 0, "version": "custom"}
    ours = AutoAttack(model, **settings, attacks_to_run=["apgd-ce"]).run_standard_evaluation(images, labels, bs=3)
    theirs = pyautoattack.AutoAttack(model, **settings, attacks=["apgd-ce"])
    expected, _ = theirs.run_standard_evaluation(images, labels, batch_size=3)
    assert torch.equal(ours, expected)
    assert not torch.equal(ours, images)


def test_a_log_file_is_refused():
    with pytest.raises(InvalidInputError, match=r"log_path: expected None, got 'x'; .*getLogger"):
        AutoAttack(linear(), log_path="x")
