"""The contracts that captum-lipschitz has its plugins keep, by its own check."""

import pytest

import captum_lipschitz_advlib as plugin
from captum_lipschitz.testing import check_plugin

QUICK = {
    "advlib:DDN": {"steps": 10},
    "advlib:FMN": {"steps": 10},
    "advlib:PDGD": {"steps": 20},
    "advlib:PDPGD": {"steps": 20},
}


@pytest.mark.parametrize("name", QUICK)
def test_contracts(name):
    (checked,) = check_plugin(plugin, only=[name], settings=QUICK)
    assert checked.name == name


def test_none_is_left_out():
    assert set(QUICK) == {component.name for component in plugin.captum_lipschitz_attacks()}
