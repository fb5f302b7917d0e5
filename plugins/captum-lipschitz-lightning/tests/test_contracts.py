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


class Absent:
    """Finds no such package, as Python does where it is not installed."""

    def __init__(self, package):
        self.package = package

    def find_spec(self, name, path=None, target=None):
        if name == self.package:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def forget(monkeypatch, package):
    """As in a program that has not used the plugin yet, and that lacks the package."""
    for name in list(sys.modules):
        if name == package or name.startswith(("captum_lipschitz_lightning.", f"{package}.")):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])


def test_the_components_keep_the_contracts():
    (checked,) = check_plugin("lightning", settings=SETTINGS, hosts={NAME: host})
    assert (checked.name, checked.attaches_to) == (NAME, ATTACHES_TO)
    assert check_plugin("lightning", settings=SETTINGS) == [checked]


def test_the_class_has_the_name_that_users_import_it_by():
    module, _, name = get("training_hook", NAME).attaches_to.rpartition(".")
    assert isinstance(host(), getattr(sys.modules[module], name))


def test_settings_that_it_cannot_be_made_without_are_told():
    with pytest.raises(ContractError, match=rf"training_hook '{NAME}': refuses an .*keyword-only argument: .*strength"):
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
