"""The plugin's components keep the contracts, and say which host they attach to, also where that is not installed."""

import re
import sys

import pytest
from modules import Classifier

from captum_lipschitz.errors import ContractError, MissingDependencyError
from captum_lipschitz.plugin import create, get
from captum_lipschitz.testing import check_plugin

NAME = "lightning:lipschitz"
ATTACHES_TO = "lightning.pytorch.LightningModule"
SETTINGS = {NAME: {"strength": 0.1}}


def host():
    return Classifier()


def forget(monkeypatch, package):
    """As in a program that has not used the plugin yet, and that lacks the package."""
    for name in list(sys.modules):
        if name.startswith("captum_lipschitz_lightning."):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_the_components_keep_the_contracts():
    (checked,) = check_plugin("lightning", settings=SETTINGS, hosts={NAME: host})
    assert (checked.name, checked.attaches_to) == (NAME, ATTACHES_TO)
    assert check_plugin("lightning", settings=SETTINGS) == [checked]


def test_the_class_has_the_name_that_users_import_it_by():
    module, _, name = get("training_hook", NAME).attaches_to.rpartition(".")
    assert isinstance(host(), getattr(sys.modules[module], name))


def test_settings_that_it_cannot_be_made_without_are_told():
    with pytest.raises(
        ContractError, match=rf"training_hook '{NAME}': raises nothing .*keyword-only argument: 'strength'"
    ):
        check_plugin("lightning")


@pytest.mark.parametrize("package", ["lightning"])
def test_a_host_that_is_not_installed_is_told_with_its_remedy(monkeypatch, package):
    forget(monkeypatch, package)
    with pytest.raises(
        MissingDependencyError, match=rf"^{package}: expected it to be installed, .*run: pip install {package}$"
    ):
        create("training_hook", NAME, strength=0.1)
    with pytest.raises(ContractError, match=rf"training_hook '{NAME}': .*{re.escape(f'run: pip install {package}')}"):
        check_plugin("lightning", settings=SETTINGS)
