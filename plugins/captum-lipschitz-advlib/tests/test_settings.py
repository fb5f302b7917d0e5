"""Settings, criteria and images that the wrapped attacks refuse, each with a message that says what was expected."""

import pytest
import torch
from known_models import SHAPE, Linear, make

from captum_lipschitz import L2, RMSE, Bounds
from captum_lipschitz.errors import InvalidInputError, InvalidTypeError


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"bounds": (0, 2)}, r"bounds: expected \(0, 1\), the box that adv-lib clamps to, got \(0, 2\)"),
        ({"bounds": None}, r"bounds: expected \(0, 1\).*, got None; .*'minimum_norm' and 'paper' take any box or none"),
        ({"norm": "l1"}, r"norm: expected one of"),
        ({"norm": RMSE(scale=2.0)}, r"norm: expected one without a scale"),
        ({"steps": 0}, r"steps: expected at least \d, got 0"),
    ],
)
def test_settings_refused_by_all(name, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        make(name, **settings)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("DDN", {"norm": "linf"}, r"norm: expected 'rmse' or 'l2', got 'linf'"),
        ("PDGD", {"norm": "linf"}, r"norm: expected 'rmse' or 'l2', got 'linf'"),
        ("DDN", {"gamma": 1.0}, r"gamma: expected a share in \(0, 1\), got 1.0"),
        ("DDN", {"initial_norm": 0.0}, r"initial_norm: expected a positive number, got 0.0"),
        ("DDN", {"levels": 1}, r"levels: expected at least 2, got 1"),
        ("FMN", {"step_size": -1.0}, r"step_size: expected a positive number, got -1.0"),
        ("FMN", {"final_gamma": 0.0}, r"final_gamma: expected a share in \(0, 1\), got 0.0"),
        ("FMN", {"overshoot": 0.9}, r"overshoot: expected a factor of at least 1, got 0.9"),
        ("PDGD", {"steps": 1}, r"steps: expected at least 2, got 1"),
        ("PDGD", {"dual_average": 1.0}, r"dual_average: expected a share in \[0, 1\), got 1.0"),
        ("PDGD", {"step_size_decrease": 1.5}, r"step_size_decrease: expected a share in \(0, 1\), got 1.5"),
        ("PDPGD", {"proximal_steps": 0}, r"proximal_steps: expected at least 1, got 0"),
    ],
)
def test_settings_refused(name, settings, message):
    with pytest.raises(InvalidInputError, match=message):
        make(name, **settings)


def test_unknown_settings_are_refused_at_once(name):
    with pytest.raises(TypeError, match="unexpected keyword argument"):
        make(name, stepz=3)


def test_unknown_criterion_is_refused_before_any_work(name):
    def model(images):
        raise AssertionError("the model was run")

    with pytest.raises(InvalidInputError, match=r"criterion: expected one of .*'misclassified'"):
        make(name)(model, torch.rand(1, *SHAPE), torch.tensor([0]), "wrong")


def test_images_that_cannot_be_used_are_refused(name):
    with pytest.raises(InvalidInputError, match=r"inputs: expected values within the bounds \[0.0, 1.0\]"):
        make(name)(Linear(2), torch.full((1, *SHAPE), 2.0), torch.tensor([0]))
    with pytest.raises(InvalidTypeError, match="inputs: expected floating point"):
        make(name)(Linear(2), torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.tensor([0]))


def test_norm_and_bounds_as_objects(name):
    attack = make(name, norm=L2(), bounds=Bounds(0, 1))
    assert attack.norm.name == "l2"
    assert attack.bounds == (0, 1)
