"""An absent host is told with the command that installs it; other errors pass."""

from __future__ import annotations

import importlib

import pytest

from captum_lipschitz.errors import MissingDependencyError
from captum_lipschitz.plugin import needing

ABSENT = "^acme_host: .* run: pip install acme_host$"
OLD = r"^json: .*'json\.tasks'.* run: pip install --upgrade json$"


def test_an_absent_package_is_told():
    with pytest.raises(MissingDependencyError, match=ABSENT) as caught, needing("other", "acme_host"):
        importlib.import_module("acme_host.tasks")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_package_too_old_is_to_be_upgraded():
    with pytest.raises(MissingDependencyError, match=OLD), needing("json"):
        importlib.import_module("json.tasks")


def test_a_package_that_tells_of_another_in_an_error_of_its_own():
    missing = ModuleNotFoundError("No module named 'acme_host'", name="acme_host")
    with pytest.raises(MissingDependencyError, match=r"^acme_host: .*Trainer; run: pip"), needing("acme_host"):
        raise ModuleNotFoundError("Could not import Trainer") from missing


@pytest.mark.parametrize(
    "error", [ModuleNotFoundError("No module named 'else'", name="else"), ImportError("cycle"), ValueError("3")]
)
def test_other_errors_pass(error):
    with pytest.raises(type(error)) as caught, needing("acme_host"):
        raise error
    assert caught.value is error
