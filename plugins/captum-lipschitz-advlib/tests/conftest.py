"""Without adv-lib there is nothing to test, and that is an error, not a skip."""

import pytest

from captum_lipschitz.errors import MissingDependencyError
from captum_lipschitz_advlib.library import advlib


def pytest_sessionstart() -> None:
    """Say how to install it, once."""
    try:
        advlib()
    except MissingDependencyError as error:
        pytest.exit(str(error), returncode=1)
