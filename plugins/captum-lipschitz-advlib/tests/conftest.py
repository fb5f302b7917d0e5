"""Without adv-lib there is nothing to test, and that is an error, not a skip."""

import pytest
from known_models import ATTACKS

from captum_lipschitz.errors import MissingDependencyError
from captum_lipschitz_advlib.library import advlib


def pytest_sessionstart() -> None:
    """Say how to install it, once."""
    try:
        advlib()
    except MissingDependencyError as error:
        pytest.exit(str(error), returncode=1)


@pytest.fixture(params=ATTACKS)
def name(request):
    """Each of the attacks in turn."""
    return request.param
