"""The contracts that captum-lipschitz has its plugins keep, by its own check: an attack of each way of running."""

import pytest

import captum_lipschitz_torchattacks as plugin
from captum_lipschitz.testing import check_plugin

QUICK = {
    "torchattacks:FGSM": {"tolerance": 0.2},
    "torchattacks:FFGSM": {"tolerance": 0.2},  # draws, so one image at a time
    "torchattacks:PGD": {"steps": 3, "tolerance": 0.2},
    "torchattacks:APGD": {"steps": 4, "tolerance": 0.3},
    "torchattacks:DeepFool": {},
    "torchattacks:FAB": {"steps": 3},
}


@pytest.mark.parametrize("name", QUICK)
def test_contracts(name):
    (checked,) = check_plugin(plugin, only=[name], settings=QUICK)
    assert checked.name == name
